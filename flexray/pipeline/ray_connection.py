"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import ray
from ray._private import ray_constants
from ray._private import utils as ray_utils
from ray._private.services import canonicalize_bootstrap_address
from ray.exceptions import AuthenticationError

import flexray
from flexray.config import RayConfig, RunConfig
from flexray.errors import ConfigError

PROJECT = Path(flexray.__file__).resolve().parent.parent
KNOCK_SECONDS = 10
ASK_SECONDS = 10
# Calls that change nothing: of a cluster's GCS, and of a server for clients (ray://).
_GCS, _CLIENT_SERVER = "/ray.rpc.NodeInfoGcsService/CheckAlive", "/ray.rpc.RayletDriver/ClusterInfo"


def connect_ray(config: RayConfig) -> None:
    """Connect to the configured cluster; idempotent.

    A job submitted to a cluster finds it by itself (RAY_ADDRESS is set there). Otherwise, and if no
    address is configured, Ray is started here, bound to loopback, and ends with this process.

    Raises:
        ConfigError: no cluster answers at the configured address, or it wants a token.
    """
    if ray.is_initialized():
        return
    logging.getLogger("ray.data._internal.progress").addFilter(
        lambda r: "Progress bars disabled" not in r.getMessage()
    )
    if address := _address(config):
        _join(address)
    else:
        _start(config)


def is_for_a_cluster(config: RunConfig) -> bool:
    """Whether a run would join a running Ray cluster instead of starting Ray here."""
    return bool(_address(config.ray))


def _address(config: RayConfig) -> str | None:
    return config.address or os.environ.get("RAY_ADDRESS")


def _join(address: str) -> None:
    try:
        found = address if "://" in address else canonicalize_bootstrap_address(address) or address
        _knock(found)
        if why := _token_refusal(found):
            raise ConfigError(f"ray.address: the Ray cluster at {address} {why}.")
        _init(address=address)
    except ConfigError:
        raise
    except AuthenticationError as e:
        raise ConfigError(f"ray.address: the Ray cluster at {address}: {e}") from e
    except (OSError, ValueError) as e:  # ValueError: no address at all
        raise ConfigError(
            f"ray.address: no Ray cluster answers at {address}: {e}. "
            "Give the host:port or ray://host:port of a running cluster, or null to start one here."
        ) from e


def _knock(address: str) -> None:
    """Raises OSError where nothing listens: Ray itself would go on trying for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()


def _token_refusal(address: str) -> str:
    """Why the cluster at host:port or ray://host:port refuses the token that Ray would show it, and what to
    do; "" if it does not, or does not answer. Ray itself would ask for 20 seconds, with a line each time, and
    then say that nobody answers."""
    if not _is_refused(address, None):
        return ""
    token, place = _find_token()
    if token and not _is_refused(address, token):
        return ""
    which = f"{place} is another" if token else place
    return (
        f"wants its token, and {which}. Set RAY_AUTH_MODE=token, and the token as RAY_AUTH_TOKEN, as a file "
        "named by RAY_AUTH_TOKEN_PATH, or in ~/.ray/auth_token"
    )


def _is_refused(address: str, token: str | None) -> bool:
    call = _CLIENT_SERVER if address.startswith("ray://") else _GCS
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(address.removeprefix("ray://")) as channel:
        try:
            channel.unary_unary(call)(b"", timeout=ASK_SECONDS, metadata=metadata)
        except grpc.RpcError as e:
            return bool(e.code() == grpc.StatusCode.UNAUTHENTICATED)
        except ValueError:  # a token that cannot be sent
            return token is not None
    return False


def _find_token() -> tuple[str, str]:
    """The token that Ray shows, of the places where it looks the first one; or "", and why there is none."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return "", "RAY_AUTH_MODE is not token, so that none is shown"
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token, "the one in RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text(encoding="utf-8").strip(), f"the one in {path}"
    except (OSError, ValueError):
        return "", "there is none here"


def _start(config: RayConfig) -> None:
    # Ray copies the whole working directory to its workers only if asked; they import flexray from where
    # it is installed, or from the project's folder if the command was started elsewhere
    python_path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    # else Ray's core warns of how Ray Data itself passes an actor's arguments
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with _on_loopback():
        _init(
            address="local",  # the default joins a cluster that `ray start` left on this machine
            num_cpus=config.num_cpus,
            object_store_memory=config.object_store_mb and config.object_store_mb * 2**20,
            include_dashboard=False,
            runtime_env={"env_vars": {"PYTHONPATH": python_path}},
        )


def _init(**arguments: Any) -> None:
    """`ray.init`, which says nothing if it succeeds, and leaves SIGTERM to us."""
    set_handler = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = lambda handler: None
    try:
        with _silence_if_well():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **arguments)
    finally:
        ray_utils.set_sigterm_handler = set_handler


@contextlib.contextmanager
def _silence_if_well() -> Iterator[None]:
    """What is written to standard error in here, by C++ as well, is shown only if an error is raised."""
    screen = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        except Exception:
            written.seek(0)
            os.write(screen, written.read())
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray that is started in here has 127.0.0.1 as its address: no process of it listens elsewhere.

    Ray takes 127.0.0.1 as an argument for the address of the network card, but on Windows and macOS it starts
    on loopback by itself. This is the switch for that, which Ray reads from an environment variable
    (RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER) when it is imported.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
