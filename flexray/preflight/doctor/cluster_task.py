"""A process of its own for the check of Ray: connect as a run does, and have one task done."""

from __future__ import annotations

import json
import platform
import socket
import sys
import time
from typing import Any

import ray

from flexray.config import RayConfig
from flexray.pipeline.ray_connection import connect


def try_ray(config: RayConfig) -> dict[str, Any]:
    """What answered: host, python, version, nodes, resources, seconds."""
    start = time.perf_counter()
    connect(config)

    @ray.remote(num_cpus=1, max_retries=0)
    def who() -> tuple[str, str]:
        return socket.gethostname(), platform.python_version()

    host, python = ray.get(who.remote())
    found = {
        "host": host,
        "python": python,
        "version": ray.__version__,
        "nodes": sum(node["Alive"] for node in ray.nodes()),
        "resources": ray.cluster_resources(),
        "seconds": time.perf_counter() - start,
    }
    ray.shutdown()
    return found


if __name__ == "__main__":
    print(json.dumps(try_ray(RayConfig.model_validate_json(sys.stdin.read()))))
