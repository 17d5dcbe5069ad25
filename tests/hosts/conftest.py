"""A cluster for all tests that need hosts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hosts.cluster import HostsCluster
from tests.hosts.network import Network, why_not


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostsCluster]:
    """Three hosts with Ray. A test that loses the worker replaces it."""
    if reason := why_not():
        pytest.skip(reason)
    with Network() as network:
        yield HostsCluster(network, tmp_path_factory.mktemp("hosts"))
