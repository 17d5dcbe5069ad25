"""One Ray for all jobs that run in this process."""

import pytest


@pytest.fixture(scope="session")
def local_ray():
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()
