"""Device, memory, time, disk and place: what would stop a run, or surprise its user, after the start."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.filesize import decimal

from flexray.config import RunConfig
from flexray.console.checks import Finding, fail, passed, warn
from flexray.console.terminal import duration
from flexray.engine.scheduler_config import GIB
from flexray.models.checkpoint import resolve_dtype
from flexray.pipeline.actors import settle_actors
from flexray.pipeline.nodes import this_machine
from flexray.pipeline.ray_connection import is_for_a_cluster
from flexray.preflight.host import existing_folder, ram_bytes
from flexray.preflight.plan.devices import Device
from flexray.preflight.plan.dry_run import DryRun
from flexray.preflight.plan.estimates import (
    CommittedOutput,
    from_committed,
    from_peak,
    room_of_sample,
)
from flexray.preflight.plan.memory import (
    MemoryPlan,
    engine_rows,
    least_cards,
    plan_cards,
    plan_memory,
    plan_work,
)
from flexray.runs.fingerprint import fingerprint_parts


def check_device(run: DryRun) -> Iterator[Finding]:
    """Whether a run would use the device, and whether it has the dtype."""
    device, model = run.device, run.config.model
    yield passed(device.has)
    if device.is_gpu and model.device == "cpu":
        yield warn("model.device is cpu: the run would leave the GPU idle. Set it to auto.")
    if lacks_cuda(device, run.config):
        yield fail(
            "model.device is cuda, but torch finds no CUDA device here. Set it to auto or cpu, or install a "
            "torch for CUDA."
        )
    wants_bfloat16 = resolve_dtype(model.dtype, on_gpu=True) == "bfloat16"
    if device.gpu is not None and not device.gpu.has_bfloat16 and wants_bfloat16:
        yield warn(f"{device.name} has no bfloat16 of its own. Set model.dtype: float16.")


def lacks_cuda(device: Device, config: RunConfig) -> bool:
    """Whether a run would start Ray here for a GPU that is not here."""
    return device.is_gpu and device.memory is None and not is_for_a_cluster(config)


def plan_memory_of_rows(run: DryRun) -> Iterator[Finding]:
    """The engine's work and memory, and whether weights and KV cache fit."""
    assert run.drawn is not None
    assert run.sample is not None
    assert run.shape is not None
    assert run.found is not None
    config, device = run.drawn, run.device
    rows = engine_rows(config, run.methods, run.sample.prompts)
    if not rows:
        return
    largest = min(config.data.shard_rows, run.found.num_rows)
    run.work = plan_work(config, rows)
    run.memory = plan_memory(config, run.shape, device, rows, largest)
    run.cards = plan_cards(config, run.shape, device, rows, largest)
    yield passed(
        f"for a question {run.work.prefill_tokens:,.0f} tokens to prefill, beside the context; answers to "
        f"decode: {run.work.answers:.3g}, each of up to {config.generation.max_new_tokens} tokens",
        "work",
    )
    yield from _memory_lines(run.memory)
    yield from _card_lines(run.cards)
    yield from _check_fit(run.memory, device, least_cards(run.cards, config.model.quantization))


def _memory_lines(memory: MemoryPlan) -> Iterator[Finding]:
    cuda = f", about {memory.cuda_bytes / GIB:.1f} GiB for CUDA" if memory.cuda_bytes else ""
    each = f" on each of {memory.ranks} cards" if memory.ranks > 1 else ""
    yield passed(
        f"{memory.needed / GIB:.2f} GiB{each}: {memory.weight_bytes / GIB:.2f} GiB of weights "
        f"({memory.parameters / 1e6:,.1f} million parameters in {memory.dtype}), "
        f"{memory.cache_bytes / GIB:.2f} GiB of KV cache ({memory.cache_slots:,} slots), "
        f"{memory.activation_bytes / GIB:.2f} GiB for the largest prefill pass{cuda}"
    )
    fewer = ""
    if memory.questions_at_once < memory.wanted_at_once:
        fewer = f", not {memory.wanted_at_once:,}: the memory holds {memory.most_slots:,} slots"
    yield passed(f"{memory.questions_at_once:,} questions at once{fewer}", "batch")


def _card_lines(cards: Sequence[MemoryPlan]) -> Iterator[Finding]:
    """For each quantisation the least tensor_parallel that fits, and what each takes."""
    for quantization in dict.fromkeys(card.quantization for card in cards):
        own = [card for card in cards if card.quantization == quantization]
        weights = ", ".join(f"{card.ranks}: {card.weight_bytes / GIB:.2f}" for card in own)
        least = least_cards(own, quantization)
        fits = f"fits with engine.tensor_parallel {least}; " if least else "fits with none; "
        known = "" if own[0].fits is None else fits
        numbers = quantization or own[0].dtype
        yield passed(f"{numbers}: {known}GiB of weights on each card by tensor_parallel: {weights}", "cards")


def _check_fit(memory: MemoryPlan, device: Device, cards: int | None) -> Iterator[Finding]:
    """Whether weights and KV cache fit.

    Args:
        cards: the least `engine.tensor_parallel` at which they do; None: not known.
    """
    if device.memory is None:
        return
    sharing = 1 if device.is_gpu else memory.ranks  # the processes that share the memory
    larger = "Take a larger GPU"
    if cards is not None:
        larger = f"Set engine.tensor_parallel to {cards}, or more. Or take a larger GPU"
    most = max(memory.loading_bytes, memory.weight_bytes)
    if most * sharing >= device.memory:
        smaller = ", model.dtype: bfloat16" if memory.dtype == "float32" else ""
        yield fail(
            f"{most / GIB:.1f} GiB of weights ({memory.dtype}) do not fit: {device.has}. {larger}{smaller}, "
            "or a smaller model."
        )
    elif device.is_gpu and not memory.questions_at_once:
        yield fail(
            f"{device.has}: beside {memory.weight_bytes / GIB:.1f} GiB of weights there is no room for a KV "
            f"cache of one row. {larger}, raise engine.gpu_memory_utilization, or lower "
            "engine.max_num_batched_tokens."
        )
    elif memory.least_slots > memory.most_slots:
        yield warn(
            f"the largest sampled row needs a KV cache of {memory.least_slots} slots, and the memory holds "
            f"{memory.most_slots}: such rows will be error rows. Lower data.max_paraphrases, or take a "
            "larger GPU."
        )
    elif not device.is_gpu and memory.needed * sharing > device.memory:
        yield warn(
            f"{memory.needed * sharing / GIB:.1f} GiB for weights and KV cache, and {device.has}. Lower "
            "engine.max_num_seqs or data.shard_rows."
        )


def check_engines(run: DryRun) -> Iterator[Finding]:
    """Whether this machine has the CPUs and GPUs for the engines, if a run would start Ray here. Keeps the
    configuration with the number of engines that a run would start, if that is known."""
    assert run.data is not None
    if run.named or is_for_a_cluster(run.config) or lacks_cuda(run.device, run.config):
        return
    gpus = 0
    if run.device.is_gpu:
        import torch

        gpus = torch.cuda.device_count()
    store = run.config.ray.object_store_mb
    if store and store * 2**20 > ram_bytes():
        yield fail(
            f"ray.object_store_mb is {store:,}, and this machine has {ram_bytes() >> 20:,} MiB of memory. "
            "Set it lower, or not at all."
        )
    here = this_machine(run.config.ray.num_cpus, gpus)
    settled = settle_actors(run.config, [here], run.data.shards)
    if settled.note:
        yield warn(settled.note.removeprefix("note: "))
    run.config = settled.config


def estimate_time(run: DryRun) -> Iterator[Finding]:
    """Time and disk space for the rows that are left: as this run or another one has taken them, else by the
    device's peak and the texts of the sample."""
    data = run.data
    if data is None or not data.left_rows:
        return
    left = (run.config, data.left_rows, data.left_shards)
    parts = None
    if run.drawn is not None and run.shape is not None:
        parts = fingerprint_parts(run.drawn, run.config.prompt.few_shot_data)
    outputs = [run.like] if run.like else []
    if run.planned is not None:
        own = run.planned
        outputs.insert(0, CommittedOutput(str(run.dry_folder), own.record.parts, own.committed.values()))
    measured = [both for output in outputs if (both := from_committed(output, parts, *left))]
    estimates = [both[0] for both in measured]
    if run.memory and run.work and (rough := from_peak(run.device, run.memory, run.work, *left)):
        estimates.append(rough)
    run.estimates = tuple(estimates)
    if measured:
        run.room = measured[0][1]
    elif run.sample and run.sample.questions:
        run.room = room_of_sample(data.left_rows, run.sample)
    for time in estimates:
        hours = "" if time.gpu_hours is None else f", {time.gpu_hours:,.2f} GPU-hours"
        yield passed(
            f"{duration(time.seconds)}{hours}, and start-up on top; {time.rows_per_second:,.2f} output "
            f"rows/s of each actor (actors: {time.actors}). {time.basis}"
        )
    if not estimates:
        yield passed(
            "not estimated: nothing is committed here to go by, and no peak of the device is known. Give "
            "--like OUT, the output of a run of this kind, or --gpu NAME."
        )


def check_disk_space(run: DryRun) -> Iterator[Finding]:
    """Whether the rows that are left fit on a local disk."""
    if run.room is None:
        return
    needed = f"{decimal(run.room.bytes)} ({run.room.basis})"
    yield passed(needed)
    if not run.dry_folder.is_local:
        return
    free = shutil.disk_usage(existing_folder(run.dry_folder.url)).free
    if free < run.room.bytes:
        note = fail if run.room.measured else warn
        yield note(
            f"{run.dry_folder}: {decimal(free)} are free, and the rows that are left need {needed}. Make "
            "room, or give another output folder."
        )


def check_place(run: DryRun) -> Iterator[Finding]:
    """Whether the nodes of a cluster see the output folder, and whether it outlives the job."""
    folder = run.dry_folder
    if is_for_a_cluster(run.config) and folder.is_local and Path(folder.url).is_relative_to(Path.cwd()):
        yield warn(
            f"{folder}: lies in the working directory, but the run is for the cluster at "
            f"{run.config.ray.address or os.environ.get('RAY_ADDRESS')}. A job's uploaded working directory "
            "is another one on each node, and is deleted with the job. Give an absolute path or a URL on "
            "storage that every node sees."
        )
