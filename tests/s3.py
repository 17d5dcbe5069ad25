"""Fixtures: an S3 server (moto) behind a proxy that can be told to fail, addressed as a user does."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import fsspec
import pytest
from s3fs import S3FileSystem

from flexray.storage.access import PATIENCE_VARIABLE
from tests.faulty_s3 import FaultyS3

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCY"
PATIENCE = TIMEOUT = 1  # seconds, of who is impatient


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    from moto.server import ThreadedMotoServer  # slow, and few tests need it

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def _proxy(moto_url: str) -> Iterator[FaultyS3]:
    S3FileSystem.clear_instance_cache()
    with FaultyS3(moto_url) as proxy:
        yield proxy


@pytest.fixture
def s3(_proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """The proxy, and an environment that leads to it; waits are shorter than by default."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", _proxy.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv(PATIENCE_VARIABLE, "5")
    yield _proxy
    _proxy.heal()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which patience ends: seconds, as the environment and fsspec's configuration say."""
    monkeypatch.setenv(PATIENCE_VARIABLE, str(PATIENCE))
    # what FSSPEC_S3='{"config_kwargs": ...}' sets in a new process
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": TIMEOUT}})


@pytest.fixture
def new_client() -> Iterator[None]:
    """For tests that change the environment: an instance keeps the endpoint and keys it was made with."""
    S3FileSystem.clear_instance_cache()
    yield
    S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def behind(moto_url: str) -> S3FileSystem:
    """The server itself, past the proxy."""
    return S3FileSystem(
        endpoint_url=moto_url, key="k", secret="s", use_listings_cache=False, skip_instance_cache=True
    )


@pytest.fixture
def bucket(behind: S3FileSystem) -> str:
    """The name of a new bucket."""
    name = f"bucket-{uuid4().hex}"
    behind.mkdir(name)
    return name
