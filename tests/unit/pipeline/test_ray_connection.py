"""Joining a cluster: one that does not answer is the user's error."""

import subprocess
import sys

import pytest
import ray

from flexray.config import RayConfig
from flexray.errors import ConfigError
from flexray.pipeline.ray_connection import connect_ray


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
@pytest.mark.parametrize("by_variable", [False, True])
def test_a_cluster_that_does_not_answer_is_told_by_its_address(monkeypatch, address, by_variable):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # a test before may have joined one
    if by_variable:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match=rf"no Ray cluster answers at {address}: .*running cluster"):
        connect_ray(RayConfig(address=None if by_variable else address))


def test_an_object_store_that_is_larger_than_the_machine_names_its_key():
    start = (
        "from flexray.config import RayConfig; from flexray.pipeline.ray_connection import connect_ray; "
        "connect_ray(RayConfig(num_cpus=1, object_store_mb=10**7))"
    )
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, timeout=120)
    last = done.stderr.splitlines()[-1]
    assert "ConfigError: ray.object_store_mb: Ray cannot start with a store of 10,000,000 MiB: " in last
    assert last.endswith("Set it lower, or not at all.")
