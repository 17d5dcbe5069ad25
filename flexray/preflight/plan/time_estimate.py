"""How long a run will take, from the speed of committed shards or from the GPU's peak."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from statistics import median
from typing import Any

from flexray.config import RunConfig
from flexray.preflight.plan.devices import Device
from flexray.preflight.plan.memory import MemoryPlan, Work
from flexray.sink import Manifest, OutputFolder, committed_shards, load_run
from flexray.sink.differences import differences
from flexray.storage import redact

PEAK_SHARE = 0.4
"""Of a GPU's peak that a run is taken to reach. docs/benchmarks.md: 53 to 65 % for the engine alone on an
H100, with rows of equal length, full batches and no reading or committing beside it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeEstimate:
    """The time for the rows that are left, without start-up, loading and compilation."""

    basis: str
    """Where the figures come from, in words."""
    rough: bool
    """Not measured."""
    rows_per_second: float
    """Output rows of one actor."""
    actors: int
    seconds: float
    gpu_hours: float | None
    """None: not on a GPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """The speed of an output's committed shards."""

    name: str
    rows_per_second: float  # of one actor, the median of the shards
    bytes_per_row: float
    shards: int
    device: str
    unlike: tuple[str, ...]
    """What differs from the run that is planned."""


def measure(name: str, manifests: Collection[Manifest], unlike: tuple[str, ...] = ()) -> Measured | None:
    """The speed of an output's shards; None if they have no times or no rows."""
    rates = [manifest.rows / manifest.seconds for manifest in manifests if manifest.seconds]
    rows = sum(manifest.rows for manifest in manifests)
    if not rates or not rows:
        return None
    devices = Counter(str(manifest.engine_stats.get("device", "unknown")) for manifest in manifests)
    return Measured(
        name=name,
        rows_per_second=median(rates),  # the first shard of each actor compiles
        bytes_per_row=sum(manifest.bytes for manifest in manifests) / rows,
        shards=len(rates),
        device=devices.most_common(1)[0][0],
        unlike=unlike,
    )


def measure_other(output: str, parts: dict[str, Any] | None) -> Measured | None:
    """The speed of another output.

    Args:
        parts: what determines the rows of the run that is planned; None: not known.

    Raises:
        OutputError: it holds no run, or cannot be read.
    """
    folder = OutputFolder(output)
    run = load_run(folder)
    found = committed_shards(folder, run.fingerprint)
    unlike: list[str] = []
    if parts is not None:
        lines = differences(run.parts, json.loads(json.dumps(redact(parts))))
        unlike = list(dict.fromkeys(line.partition(":")[0].partition(".")[0] for line in lines))
    return measure(str(folder), found.values(), tuple(unlike))


def from_measured(found: Measured, config: RunConfig, rows: int, shards: int) -> TimeEstimate:
    """From rows per second.

    Args:
        rows, shards: what is left.
    """
    basis = f"measured: median of {found.shards} committed shards of {found.name}, on {found.device}" + (
        f"; that run differs in {', '.join(found.unlike)}" if found.unlike else ""
    )
    return _estimate(basis, False, found.rows_per_second, rows, shards, config, found.device != "cpu")


def from_peak(
    device: Device,
    memory: MemoryPlan,
    work: Work,
    config: RunConfig,
    questions: int,
    methods: int,
    shards: int,
) -> TimeEstimate | None:
    """From the operations of the model's matrix products, two for each parameter and token; None if the
    device's peak is not known.

    Args:
        questions, shards: what is left. methods: output rows of a question.
    """
    peak = device.peak(memory.dtype)
    if peak is None:
        return None
    tokens = work.prefill_tokens + work.answer_tokens
    seconds_each = 2 * memory.parameters * tokens / (PEAK_SHARE * peak)
    basis = (
        f"rough, not measured: 2 x {memory.parameters / 1e6:,.0f} million parameters x {tokens:,.0f} tokens "
        f"for a question (answers as long as they may be), at {PEAK_SHARE:.0%} of the {peak / 1e12:.0f} "
        f"TFLOP/s of {device.name}"
    )
    return _estimate(basis, True, methods / seconds_each, questions * methods, shards, config, True)


def _estimate(
    basis: str, rough: bool, rate: float, rows: int, shards: int, config: RunConfig, on_gpu: bool
) -> TimeEstimate:
    actors = min(config.ray.max_actors or config.ray.min_actors, shards)
    seconds = rows / (rate * actors)
    gpus = 1.0 if config.ray.num_gpus_per_actor is None else config.ray.num_gpus_per_actor
    return TimeEstimate(
        basis=basis,
        rough=rough,
        rows_per_second=rate,
        actors=actors,
        seconds=seconds,
        gpu_hours=seconds / 3600 * actors * gpus if on_gpu else None,
    )
