"""Ray: one is started here, or the configured one answers, and does a task."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator

from flexray.config import RayConfig, RunConfig
from flexray.preflight.doctor.examine import Finding
from flexray.preflight.doctor.process import ProcessError, call_module
from flexray.preflight.plan.devices import is_for_a_cluster

SECONDS = 180.0
LEAST_STORE_MB = 80


def check_cluster(config: RunConfig | None) -> Iterator[Finding]:
    """A Ray of one CPU is started and stopped; or the cluster of ray.address, or RAY_ADDRESS, is joined."""
    joins = is_for_a_cluster(config) if config else bool(os.environ.get("RAY_ADDRESS"))
    ray = config.ray if config and joins else RayConfig(num_cpus=1, object_store_mb=LEAST_STORE_MB)
    where = (
        f"the cluster at {ray.address or os.environ.get('RAY_ADDRESS')}" if joins else "a Ray on this machine"
    )
    try:
        found = call_module("flexray.preflight.doctor.cluster_task", ray.model_dump(mode="json"), SECONDS)
    except ProcessError as e:
        advice = "Look into the newest folder below /tmp/ray for its logs."
        if joins:
            advice = "Check ray.address, the network and Ray's token (cluster/README.md)."
        yield Finding("fail", f"{where} {e}", advice)
        return
    gpus = found["resources"].get("GPU", 0)
    what = (
        f"Ray {found['version']}: {where} did a task on {found['host']} in {found['seconds']:.1f} s; "
        f"nodes: {found['nodes']}, CPUs: {found['resources'].get('CPU', 0):g}, GPUs: {gpus:g}"
    )
    if found["python"] != platform.python_version():
        yield Finding(
            "fail", f"{what}; its Python is {found['python']}, here it is {platform.python_version()}"
        )
        return
    if config is not None and joins and gpus and config.ray.max_actors:
        each = config.ray.num_gpus_per_actor
        wanted = config.ray.max_actors * (1 if each is None else each)
        if wanted > gpus:
            yield Finding(
                "warn",
                f"{what}; ray.max_actors asks for {wanted:g} GPUs",
                "Fewer actors than that will work: lower ray.max_actors, or add nodes.",
            )
            return
    yield Finding("pass", what)
