"""Device, memory, output folder and disk: what would stop a run, or surprise its user, after the start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from rich.filesize import decimal

from flexray.config import RunConfig
from flexray.engine.scheduler_config import GIB
from flexray.models.checkpoint import resolve_dtype
from flexray.pipeline.actors import settle_actors
from flexray.pipeline.nodes import this_machine
from flexray.pipeline.ray_connection import is_for_a_cluster
from flexray.preflight.check_results import Problems
from flexray.preflight.host import free_bytes
from flexray.preflight.plan.devices import Device
from flexray.preflight.plan.dry_folder import DryFolder
from flexray.preflight.plan.estimates import Room
from flexray.preflight.plan.memory import MemoryPlan
from flexray.sink.lock.file import Owner
from flexray.sink.lock.hold import EXPIRY_SECONDS


def check_device(config: RunConfig, device: Device, named: bool, problems: Problems) -> None:
    """Whether a run would use the device, and whether it has the dtype.

    Args:
        named: the device is not this machine's, but the one that the user asked for.
    """
    if device.is_gpu and config.model.device == "cpu":
        problems.warn("device", "model.device is cpu: the run would leave the GPU idle. Set it to auto.")
    if device.is_gpu and not named and device.memory is None and not is_for_a_cluster(config):
        problems.fail(
            "device",
            "model.device is cuda, but torch finds no CUDA device here. Set it to auto or cpu, or install a "
            "torch for CUDA.",
        )
    wants_bfloat16 = resolve_dtype(config.model.dtype, on_gpu=True) == "bfloat16"
    if device.gpu is not None and not device.gpu.has_bfloat16 and wants_bfloat16:
        problems.warn("device", f"{device.name} has no bfloat16 of its own. Set model.dtype: float16.")


def check_actors(config: RunConfig, device: Device, shards: int, problems: Problems) -> RunConfig:
    """Whether this machine has the CPUs and GPUs for the engines, if a run would start Ray here.

    Returns:
        The configuration with the number of engines that a run would start, if that is known.
    """
    if is_for_a_cluster(config) or (
        device.is_gpu and device.memory is None
    ):  # which `check_device` has reported
        return config
    gpus = 0
    if device.is_gpu:
        import torch

        gpus = torch.cuda.device_count()
    here = this_machine(config.ray.num_cpus, gpus)
    settled = problems.attempt("engines", lambda: settle_actors(config, [here], shards))
    if settled is None:
        return config
    if settled.note:
        problems.warn("engines", settled.note.removeprefix("note: "))
    return settled.config


def check_model_fits(memory: MemoryPlan, device: Device, problems: Problems, cards: int | None) -> None:
    """Whether weights and KV cache fit.

    Args:
        cards: the least `engine.tensor_parallel` at which they do; None: not known.
    """
    if device.memory is None:
        return
    sharing = 1 if device.is_gpu else memory.ranks  # the processes that share the memory
    more = "" if cards is None else f"Set engine.tensor_parallel to {cards}, or more. Or take"
    larger = f"{more or 'Take'} a larger GPU"
    has = f"{device.name} has {device.memory / GIB:.1f} GiB"
    weights = f"{memory.weight_bytes / GIB:.1f} GiB of weights ({memory.dtype})"
    if max(memory.loading_bytes, memory.weight_bytes) * sharing >= device.memory:
        if memory.weight_bytes < memory.loading_bytes:
            first = f"({memory.dtype}, before they are quantised)"
            weights = f"{memory.loading_bytes / GIB:.1f} GiB of weights {first}"
        smaller = ", model.dtype: bfloat16" if memory.dtype == "float32" else ""
        problems.fail("memory", f"{weights} do not fit: {has}. {larger}{smaller}, or a smaller model.")
    elif device.is_gpu and not memory.questions_at_once:
        problems.fail(
            "memory",
            f"{has}: beside {weights} there is no room for a KV cache of one row. {larger}, raise "
            "engine.gpu_memory_utilization, or lower engine.max_num_batched_tokens.",
        )
    elif memory.least_slots > memory.most_slots:
        problems.warn(
            "memory",
            f"the largest sampled row needs a KV cache of {memory.least_slots} slots, and the memory holds "
            f"{memory.most_slots}: such rows will be error rows. Lower data.max_paraphrases, or take a "
            "larger GPU.",
        )
    elif not device.is_gpu and memory.needed * sharing > device.memory:
        problems.warn(
            "memory",
            f"{memory.needed * sharing / GIB:.1f} GiB for weights and KV cache, and {has}. Lower "
            "engine.max_num_seqs or data.shard_rows.",
        )


def check_place(folder: DryFolder, config: RunConfig, problems: Problems) -> None:
    """Whether the nodes of a cluster see the output folder, and whether it outlives the job."""
    if is_for_a_cluster(config) and folder.is_local and Path(folder.url).is_relative_to(Path.cwd()):
        problems.warn(
            "output",
            f"{folder}: lies in the working directory, but the run is for the cluster at "
            f"{config.ray.address or os.environ.get('RAY_ADDRESS')}. A job's uploaded working directory is "
            "another one on each node, and is deleted with the job. Give an absolute path or a URL on "
            "storage that every node sees.",
        )


def check_disk_space(folder: DryFolder, room: Room, problems: Problems) -> None:
    """Whether the rows that are left fit on a local disk."""
    free = problems.attempt("disk", lambda: free_bytes(folder.url))
    if free is not None and room.bytes > free:
        note = problems.fail if room.measured else problems.warn
        note(
            "disk",
            f"{folder}: {decimal(free)} are free, and the rows that are left need "
            f"{decimal(room.bytes)} ({room.basis}). Make room, or give another output folder.",
        )


def check_locks(
    folder: DryFolder, before: Mapping[str, bytes], now: Mapping[str, bytes], problems: Problems
) -> None:
    """Whether another run works in the folder. Its lock files are read twice: a lock that changed in between
    has a live owner. The lock of a dead process does not stop a run."""
    for name, data in now.items():
        owner = Owner.parse(data)
        if owner is not None and owner.is_dead():
            continue
        who = owner or "a process that did not say its name"
        is_here = owner is not None and bool(owner.machine) and owner.machine == Owner.me().machine
        if is_here or before.get(name, data) != data:
            problems.fail(
                "lock", f"{folder}: another run is at work there: {who}. Wait until it has ended, or stop it."
            )
        else:
            problems.warn(
                "lock",
                f"{folder}: another run may be at work there: {who}. A start watches it for up to "
                f"{EXPIRY_SECONDS:.0f} s, and takes over if there is no heartbeat.",
            )
