"""Connect to a file system, and retry what fails in a transient way: one policy for all of them.

s3fs and botocore have retries of their own, one inside the other. Together they send a request up to 125
times, over half an hour; or not again at all, if an answer of 50 MB breaks off. So theirs are off, and
`retry` is what tries again. Overridden by fsspec's configuration: ~/.config/fsspec/*.json, or
FSSPEC_S3='{"config_kwargs": {"read_timeout": 60}}' in the environment.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import fsspec
from fsspec.core import split_protocol, url_to_fs
from fsspec.registry import known_implementations
from fsspec.spec import AbstractFileSystem

from flexray.errors import ConfigError, UserError
from flexray.storage.error_messages import TRANSIENT, describe, diagnose, hide, translate
from flexray.storage.redact import redact

PATIENCE_VARIABLE = "FLEXRAY_STORAGE_PATIENCE"
"""Seconds for which an operation with a transient error is tried again; 0: never."""
PATIENCE = 120.0
FIRST_PATIENCE = 10.0
"""The same at the start, for a storage that cannot be reached at all: nothing is lost yet, and the address
may be wrong."""
CONNECT_SECONDS = 5
ANSWER_SECONDS = 30
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0  # seconds; shorter if the patience is
SLOWEST_UPLOAD = 8 * 2**20  # bytes in ANSWER_SECONDS

_S3, _HTTP = {"s3", "s3a"}, {"http", "https"}
_starting: ContextVar[bool] = ContextVar("_starting", default=False)
_log = logging.getLogger(__name__)
T = TypeVar("T")


@contextmanager
def starting() -> Iterator[None]:
    """On the driver, before a run has begun: give up soon on a storage that cannot be reached."""
    token = _starting.set(True)
    try:
        yield
    finally:
        _starting.reset(token)


def connect(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a path or URL, and the name in it. Nothing is sent yet, but that of an archive
    (zip://a::s3://b/c.zip) reads its table.

    Raises:
        ValueError: there is no such file system.
        ImportError: its package is not installed; the message says how to.
        Exception: whatever the file system's own package raises for a bad URL.
    """
    protocols = {split_protocol(part)[0] for part in url.split("::")}
    try:
        settings = {protocol: _s3_settings() for protocol in protocols & _S3}
        settings |= {protocol: _http_settings(protocol) for protocol in protocols & _HTTP}
        fs, name = url_to_fs(url, **settings)
    except ImportError as e:
        raise ImportError(f"{e}{_how_to_install(protocols)}") from e
    if protocols & _S3:
        fs.retries = 1
    return fs, name


def retry(url: str, call: Callable[[], T], *, patience: float | None = None) -> T:
    """What `call` returns. It is called again, after growing waits, while it fails in a transient way:
    a server that is busy or broken, a connection that cannot be made or is cut, a short answer.

    Args:
        url: what it is about, for messages.
        call: may be called several times, and has the same effect then.
        patience: seconds after which it is not tried again; None: FLEXRAY_STORAGE_PATIENCE, or 120.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: anything else that the file system raised, in words (StorageError).
        ConfigError: FLEXRAY_STORAGE_PATIENCE is no number.
    """
    patience = _configured_patience() if patience is None else patience
    first, longest = min(FIRST_WAIT, patience / 100), min(LONGEST_WAIT, patience / 8)
    start = time.monotonic()
    attempts = 0
    while True:
        attempts += 1
        try:
            return call()
        except UserError:
            raise
        except Exception as e:  # each file system has types of its own, outside of OSError too
            seconds = time.monotonic() - start
            kind = diagnose(e, url).kind
            transient = kind in TRANSIENT
            if kind == "unreachable" and _starting.get():
                patience = min(patience, FIRST_PATIENCE)
            wait = min(first * 2 ** (attempts - 1), longest) * random.uniform(0.5, 1)
            if not transient or seconds + wait > patience:
                tried = f"tried {attempts} times in {seconds:.0f} s" if transient else ""
                translated = translate(e, url, tried)
                if translated is e:
                    raise
                # A traceback shows causes as well, and they may show credentials.
                raise translated from (e if hide(str(e), url) == str(e) else None)
            _log.warning("%s: %s Trying again in %.1f s", redact(url), describe(e, url), wait)
        time.sleep(wait)


def write_file(fs: AbstractFileSystem, name: str, data: bytes, *, replace: bool = True) -> None:
    """Put a whole file. On an object store that is one request, or several with the file appearing at the
    last (S3: 100 MB and more); readers see all of it or nothing. Without `replace` it is an error if the
    file is there (`diagnose` calls it "exists")."""
    options: dict[str, Any] = {} if replace else {"mode": "create"}
    if fs.async_impl:
        # Timeouts of aiohttp count from the last byte sent: without
        # this one, a server that stops reading is waited for without end. When it runs out, the connection is
        # dropped, and the store drops what it has got by then.
        seconds = getattr(fs, "config_kwargs", {}).get("read_timeout", ANSWER_SECONDS)
        options["timeout"] = seconds * (1 + len(data) / SLOWEST_UPLOAD)
    fs.pipe_file(name, data, **options)


def _configured_patience() -> float:
    text = os.environ.get(PATIENCE_VARIABLE, str(PATIENCE))
    try:
        return float(text)
    except ValueError as e:
        raise ConfigError(f"{PATIENCE_VARIABLE}: seconds are wanted, found {text!r}.") from e


def _s3_settings() -> dict[str, Any]:
    users = fsspec.config.conf.get("s3", {}) | fsspec.config.conf.get("s3a", {})
    config = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": ANSWER_SECONDS,
        "retries": {"mode": "standard", "total_max_attempts": 1},
    }
    return {
        # More would ask for the size first, and read a large file in parts, which may be of two versions.
        "max_concurrency": 1,
        "use_listings_cache": False,  # other processes write too
        **users,
        "config_kwargs": config | users.get("config_kwargs", {}),
    }


def _http_settings(protocol: str) -> dict[str, Any]:
    import aiohttp  # fsspec needs it for these protocols alone

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=ANSWER_SECONDS)
    users = fsspec.config.conf.get(protocol, {})
    return {**users, "client_kwargs": {"timeout": timeout, **users.get("client_kwargs", {})}}


def _how_to_install(protocols: set[str | None]) -> str:
    for protocol in protocols:
        package = known_implementations.get(protocol or "", {}).get("class", "").partition(".")[0]
        if package and package != "fsspec":
            return f": pip install {package}"
    return ""
