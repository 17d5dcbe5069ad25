"""Connect to a file system, and retry transient failures by one policy for all file systems.

s3fs and botocore have their own retries, one inside the other. Together they send a request up to 125 times
within half an hour, but do not send it again if an answer of 50 MB breaks off. So theirs are off, and only
`retry` tries again. The settings can be overridden by fsspec's configuration: ~/.config/fsspec/*.json, or
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
from fsspec.spec import AbstractFileSystem

from flexray.errors import ConfigError, UserError
from flexray.storage.error_messages import TRANSIENT, describe, diagnose, hide, translate
from flexray.storage.redact import redact

PATIENCE_VARIABLE = "FLEXRAY_STORAGE_PATIENCE"
"""Seconds during which an operation with a transient error is tried again; 0: never."""
PATIENCE = 120.0
FIRST_PATIENCE = 10.0
"""The same at the start for a storage that cannot be reached: no work is lost yet, and the URL may be
wrong."""
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
    """Within this block, before a run has begun, give up soon on a storage that cannot be reached."""
    token = _starting.set(True)
    try:
        yield
    finally:
        _starting.reset(token)


def connect(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a path or URL, and the name within it. Nothing is sent yet, except for an archive
    (zip://a::s3://b/c.zip), whose table of contents is read.

    Raises:
        ValueError: there is no such file system.
        ImportError: its package is not installed; the message names it.
        Exception: of any type, raised by the file system's package for a bad URL.
    """
    protocols = {split_protocol(part)[0] for part in url.split("::")}
    settings = {protocol: _s3_settings() for protocol in protocols & _S3}
    settings |= {protocol: _http_settings(protocol) for protocol in protocols & _HTTP}
    if any(part.lower().endswith(".tgz") for part in url.split("::")):
        settings["tar"] = {"compression": "gzip"}  # fsspec infers it of .tar.gz only
    fs, name = url_to_fs(url, **settings)
    if protocols & _S3:
        fs.retries = 1
    return fs, name


def retry(url: str, call: Callable[[], T], *, patience: float | None = None) -> T:
    """Call `call` and return its result. After a transient failure (a busy or broken server, a connection
    that fails or is cut, a short answer) it is called again, after growing waits.

    Args:
        url: for messages.
        call: must have the same effect if it is called several times.
        patience: seconds after which it is not tried again; None: FLEXRAY_STORAGE_PATIENCE, or 120.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: any other error of the file system, with advice (StorageError).
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
        except Exception as e:  # file systems raise types of their own, not only OSErrors
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
                # a traceback shows causes too, and a cause may show credentials
                raise translated from (e if hide(str(e), url) == str(e) else None)
            _log.warning("%s: %s Trying again in %.1f s", redact(url), describe(e, url), wait)
        time.sleep(wait)


def write_file(fs: AbstractFileSystem, name: str, data: bytes, *, replace: bool = True) -> None:
    """Write a whole file. On an object store that is one request, or several (S3: 100 MB and more), the last
    of which makes the file appear: readers see all of it or nothing. Without `replace` an existing file is an
    error, which `diagnose` calls "exists"."""
    options: dict[str, Any] = {} if replace else {"mode": "create"}
    if fs.async_impl:
        # Timeouts of aiohttp start after the last byte is sent. Without this one, a server that stops reading
        # would be waited for without end. When it expires, the connection is closed and the upload discarded.
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
        # with more, s3fs reads a large file in parts, which may come from two versions of it
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
