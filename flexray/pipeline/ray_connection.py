"""Connect to a Ray cluster, or start one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
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
NOISE = {
    "ray.data._internal.progress": "Progress bars disabled",
    "ray.data._internal.execution.streaming_executor": "execution finished in",
}
"""Messages of Ray's loggers that tell users nothing, by the text in them."""
# Milliseconds. A host without power or network closes no connection. By default, Ray asks after five minutes
# whether the host of a task is there, waits for two more, and only then runs the task elsewhere.
_KEEPALIVE = {
    "RAY_grpc_client_keepalive_time_ms": "30000",
    "RAY_grpc_client_keepalive_timeout_ms": "60000",
}
# Read-only calls: of a cluster's GCS, and of its server for Ray clients (ray://).
_GCS, _CLIENT_SERVER = "/ray.rpc.NodeInfoGcsService/CheckAlive", "/ray.rpc.RayletDriver/ClusterInfo"


def connect_ray(config: RayConfig, note: Callable[[str], None] = lambda line: None) -> None:
    """Connect to the configured cluster; does nothing if this process is already connected.

    A job that was submitted to a cluster connects to that cluster, because RAY_ADDRESS is set there. If no
    address is configured and RAY_ADDRESS is not set, Ray is started on this machine, bound to loopback, and
    ends with this process.

    Args:
        note: called with a line that says what is begun, which takes seconds.

    Raises:
        ConfigError: no cluster answers at the configured address, or it requires a token.
    """
    if ray.is_initialized():
        return
    address = _address(config)
    note(f"joining the Ray cluster at {address}" if address else "starting Ray on this machine")
    for module, message in NOISE.items():
        logging.getLogger(module).addFilter(partial(_is_other, message))
    if address:
        _join(address)
    else:
        _start(config)


def _is_other(message: str, record: logging.LogRecord) -> bool:
    return message not in record.getMessage()


def is_for_a_cluster(config: RunConfig) -> bool:
    """Whether a run would join a running Ray cluster instead of starting Ray here."""
    return bool(_address(config.ray))


def _address(config: RayConfig) -> str | None:
    return config.address or os.environ.get("RAY_ADDRESS")


def _join(address: str) -> None:
    for name, value in _KEEPALIVE.items():
        os.environ.setdefault(name, value)
    try:
        reach(address, "ray.address")
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


def reach(address: str, source: str) -> None:
    """Make sure that a cluster listens at an address that `ray.init` takes, and accepts our token.

    Args:
        source: what names the address, for messages.

    Raises:
        OSError: nothing listens.
        ValueError: it is no address.
        ConfigError: the cluster refuses the token, or wants one.
    """
    found = address if "://" in address else canonicalize_bootstrap_address(address) or address
    _knock(found)
    if why := _token_refusal(found):
        raise ConfigError(f"{source}: the Ray cluster at {address} {why}.")


def _knock(address: str) -> None:
    """Raises OSError if nothing listens at the address. Ray itself would retry for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()


def _token_refusal(address: str) -> str:
    """Why the cluster at host:port or ray://host:port refuses the token that Ray would send, and what to do.

    "" if it accepts the token or does not answer. Ray itself would retry for 20 seconds, print a line each
    time, and then report that no cluster answers."""
    if not _is_refused(address, None):
        return ""
    token, place = _find_token()
    if token and not _is_refused(address, token):
        return ""
    which = f"{place} is not the right one" if token else place
    return (
        f"requires a token, but {which}. Set RAY_AUTH_MODE=token, and put the token into RAY_AUTH_TOKEN, "
        "into a file that RAY_AUTH_TOKEN_PATH names, or into ~/.ray/auth_token"
    )


def _is_refused(address: str, token: str | None) -> bool:
    call = _CLIENT_SERVER if address.startswith("ray://") else _GCS
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(address.removeprefix("ray://")) as channel:
        try:
            channel.unary_unary(call)(b"", timeout=ASK_SECONDS, metadata=metadata)
        except grpc.RpcError as e:
            return bool(e.code() == grpc.StatusCode.UNAUTHENTICATED)
        except ValueError:  # the token cannot be sent
            return token is not None
    return False


def _find_token() -> tuple[str, str]:
    """The token that Ray sends, found in the same order as Ray does, and where it is; or "", and why there is
    none."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return "", "RAY_AUTH_MODE is not token, so none is sent"
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token, "the one in RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text(encoding="utf-8").strip(), f"the one in {path}"
    except (OSError, ValueError):
        return "", "none is set on this machine"


def _start(config: RayConfig) -> None:
    # Ray does not copy the working directory to its workers by default. They import flexray from where it is
    # installed, or from the project's folder if the command was started in another folder.
    python_path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    # without this, Ray's core prints warnings about how Ray Data passes an actor's arguments
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    store = config.object_store_mb and config.object_store_mb * 2**20
    try:
        with _on_loopback():
            _init(
                address="local",  # by default, Ray would join a cluster that runs on this machine
                num_cpus=config.num_cpus,
                object_store_memory=store,
                include_dashboard=False,
                runtime_env={"env_vars": {"PYTHONPATH": python_path}},
            )
    except ValueError as e:
        if not store:
            raise
        raise ConfigError(
            f"ray.object_store_mb: Ray cannot start with a store of {config.object_store_mb:,} MiB: {e} "
            "Set it lower, or not at all."
        ) from e


def _init(**arguments: Any) -> None:
    """Call `ray.init` without output if it succeeds, and without Ray's own handler of SIGTERM."""
    set_handler = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = lambda handler: None
    try:
        with _silence_if_well():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **arguments)
    finally:
        ray_utils.set_sigterm_handler = set_handler


@contextlib.contextmanager
def _silence_if_well() -> Iterator[None]:
    """Show what is written to standard error, also by C++ code, only if an error is raised."""
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
    """Make a Ray cluster that is started in this context use 127.0.0.1, so that its processes listen on
    loopback only.

    If Ray is given the address 127.0.0.1, it replaces it by that of the network card. On Windows and macOS it
    uses loopback by default. This constant switches that on; Ray reads it from an environment variable
    (RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER) when it is imported.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
