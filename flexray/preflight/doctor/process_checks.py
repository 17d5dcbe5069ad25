"""The checks that may hang or crash, each in a process of its own: attention and Ray."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from flexray.config import EngineConfig, RayConfig, RunConfig
from flexray.console.checks import Finding, fail, passed, warn
from flexray.errors import UserError
from flexray.models.checkpoint import check_checkpoint, resolve_dtype
from flexray.models.families import kv_shape
from flexray.pipeline.ray_connection import is_for_a_cluster
from flexray.preflight.doctor.machine_checks import runs_on_gpu
from flexray.preflight.doctor.packages import PROJECT

TASKS = "flexray.preflight.doctor.process_tasks"
ATTENTION_SECONDS = 900.0  # a busy machine compiles for minutes
RAY_SECONDS = 180.0
LEAST_STORE_MB = 80
SHOWN_LINES = 3


def check_attention(config: RunConfig | None) -> Iterator[Finding]:
    """Whether a tiny random model answers with the same tokens by the configured backend and by `eager`.

    In float32 both must agree. In 16 bits, if the run uses them, the backend only has to work.
    """
    engine = config.engine if config else EngineConfig()
    if engine.backend == "eager":
        yield passed("eager is what other backends are compared with")
        return
    wanted = resolve_dtype(config.model.dtype if config else "auto", on_gpu=runs_on_gpu(config))
    for dtype in dict.fromkeys(["float32", wanted]):
        try:
            found = call_module(TASKS, _task(config, engine, dtype), ATTENTION_SECONDS)
        except ProcessError as e:
            yield fail(f"{engine.backend} in {dtype}: the process that tried it {e}")
            return
        result = judge(found, engine, dtype)
        yield result
        if result.status != "pass":
            return


def judge(found: dict[str, Any], engine: EngineConfig, dtype: str) -> Finding:
    """What the outcome of `process_tasks.compare_backends` means for a run."""
    what = f"{engine.backend} on {found['device']} in {dtype} ({found['seconds']:.0f} s)"
    if error := found["error"]:
        if engine.strict or not found["falls_back"]:
            advice = "A run would stop. Set engine.backend to sdpa to do without it."
            return fail(f"{what}: {error}", advice)
        return warn(
            f"{what}: {error}",
            "Rows will be answered by another backend, and say so. Setting engine.backend to sdpa saves the "
            "attempts.",
        )
    same = f"{found['same']} of {found['answers']} answers are those of eager"
    if dtype == "float32" and found["same"] < found["answers"]:
        return fail(f"{what}: only {same}", "Do not use this backend here: set engine.backend.")
    return passed(f"{what}: {same}")


def _task(config: RunConfig | None, engine: EngineConfig, dtype: str) -> dict[str, Any]:
    """The task for the process, with the head sizes of the configured model if they can be read."""
    heads, width = 3, 64
    if config is not None:
        with contextlib.suppress(UserError):  # which the check of the model reports
            shape = check_checkpoint(config.model.path)
            kv_heads, width = kv_shape(shape)
            heads = shape.num_attention_heads // kv_heads
    device = "cuda" if runs_on_gpu(config) else "cpu"
    asked = {"backend": engine.backend, "device": device, "dtype": dtype, "heads": heads, "width": width}
    return {"task": "attention", **asked}


def check_cluster(config: RunConfig | None) -> Iterator[Finding]:
    """Start and stop a Ray of one CPU, or join the cluster of ray.address or RAY_ADDRESS."""
    joins = is_for_a_cluster(config) if config else bool(os.environ.get("RAY_ADDRESS"))
    ray = config.ray if config and joins else RayConfig(num_cpus=1, object_store_mb=LEAST_STORE_MB)
    where = (
        f"the cluster at {ray.address or os.environ.get('RAY_ADDRESS')}" if joins else "a Ray on this machine"
    )
    try:
        found = call_module(TASKS, {"task": "ray", "config": ray.model_dump(mode="json")}, RAY_SECONDS)
    except ProcessError as e:
        advice = "Look into the newest folder below /tmp/ray for its logs."
        if joins:
            advice = "Check ray.address, the network and Ray's token (cluster/README.md)."
        yield fail(f"{where} {e}", advice)
        return
    gpus = found["resources"].get("GPU", 0)
    what = (
        f"Ray {found['version']}: {where} did a task on {found['host']} in {found['seconds']:.1f} s; "
        f"nodes: {found['nodes']}, CPUs: {found['resources'].get('CPU', 0):g}, GPUs: {gpus:g}"
    )
    if found["python"] != platform.python_version():
        yield fail(f"{what}; its Python is {found['python']}, here it is {platform.python_version()}")
        return
    if config is not None and joins and gpus and config.ray.max_actors:
        each = config.ray.num_gpus_per_actor
        wanted = config.ray.max_actors * (1 if each is None else each)
        if wanted > gpus:
            advice = "Fewer actors than that will work: lower ray.max_actors, or add nodes."
            yield warn(f"{what}; ray.max_actors asks for {wanted:g} GPUs", advice)
            return
    yield passed(what)


class ProcessError(RuntimeError):
    """The process failed or was stopped."""


def call_module(module: str, argument: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Run `python -m module`, which reads a JSON object and prints a JSON object as its last line.

    Raises:
        ProcessError: it failed, died or took longer than `seconds`.
    """
    python_path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=json.dumps(argument),
            env=os.environ | {"PYTHONPATH": python_path},
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as e:
        raise ProcessError(f"gave no answer in {seconds:.0f} s") from e
    if done.returncode:
        end = f"ended with exit code {done.returncode}"
        if done.returncode < 0:
            end = f"was killed by {signal.Signals(-done.returncode).name}"
        last = " / ".join(done.stderr.strip().splitlines()[-SHOWN_LINES:])
        raise ProcessError(f"{end}: {last}" if last else end)
    return dict(json.loads(done.stdout.splitlines()[-1]))
