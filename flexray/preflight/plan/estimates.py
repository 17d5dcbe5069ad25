"""How long a run will take and how much disk space it needs."""

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
from flexray.preflight.plan.sample import Sample
from flexray.sink import Manifest, OutputFolder, committed_shards, load_run
from flexray.sink.records.differences import differences
from flexray.storage import redact

PEAK_SHARE = 0.4
"""The share of a GPU's peak that a run is assumed to reach. docs/benchmarks.md: 53 to 65 % for the engine
alone on an H100, with rows of equal length, full batches and no reading or committing beside it."""
ROW_BYTES = 400  # of an output row beside its texts, about
SCORE_BYTES = 8  # of a candidate's score


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeEstimate:
    """The time for the rows that are left, without start-up, loading and compilation."""

    basis: str  # how the figures were obtained, in words
    rough: bool  # whether they are not measured
    rows_per_second: float  # output rows that one actor answers in a second
    actors: int
    seconds: float
    gpu_hours: float | None  # None: not on a GPU


@dataclass(frozen=True, slots=True)
class Room:
    """Disk space for the rows that are left, in bytes, and how that figure was obtained."""

    bytes: int
    basis: str
    measured: bool  # whether it is taken from rows of this run


@dataclass(frozen=True, slots=True)
class CommittedOutput:
    """The committed shards of an output folder."""

    output: str
    parts: dict[str, Any]  # of the run's fingerprint
    manifests: Collection[Manifest]

    def differs_in(self, parts: dict[str, Any] | None) -> list[str]:
        """The sections in which that run differs from one whose fingerprint has these parts; [] if they are
        not known."""
        lines = differences(self.parts, json.loads(json.dumps(redact(parts)))) if parts else []
        return list(dict.fromkeys(line.partition(":")[0].partition(".")[0] for line in lines))


def read_output(output: str) -> CommittedOutput:
    """The committed shards of another output folder. Raises OutputError if it holds no run, or cannot be
    read."""
    folder = OutputFolder(output)
    run = load_run(folder)
    return CommittedOutput(str(folder), run.parts, committed_shards(folder, run).values())


def from_committed(
    committed: CommittedOutput, parts: dict[str, Any] | None, config: RunConfig, rows: int, shards: int
) -> tuple[TimeEstimate, Room] | None:
    """Time and disk space for the `rows` and `shards` that are left, as committed shards took them; None if
    these have no times or no rows.

    Args:
        parts: of the planned run's fingerprint; None: not known.
    """
    manifests = committed.manifests
    rates = [manifest.rows / manifest.seconds for manifest in manifests if manifest.seconds]
    measured_rows = sum(manifest.rows for manifest in manifests)
    if not rates or not measured_rows:
        return None
    devices = Counter(str(manifest.engine_stats.get("device", "unknown")) for manifest in manifests)
    device = devices.most_common(1)[0][0]
    basis = f"Measured: median of {len(rates)} committed shards of {committed.output}, on {device}"
    differs_in = committed.differs_in(parts)
    if differs_in:
        basis += f"; that run differs in {', '.join(differs_in)}"
    rate = median(rates)  # the first shard of each actor includes compilation
    time = _estimate(basis, config, rows, shards, rate=rate, rough=False, on_gpu=device != "cpu")
    size = rows * sum(manifest.bytes for manifest in manifests) / measured_rows
    return time, Room(int(size), f"measured in {committed.output}", not differs_in)


def from_peak(
    device: Device, memory: MemoryPlan, work: Work, config: RunConfig, rows: int, shards: int
) -> TimeEstimate | None:
    """The time for the `rows` and `shards` that are left, from the operations of the model's matrix products:
    two for each parameter and token. None if the device's peak is not known."""
    peak = device.peak(memory.dtype)
    if peak is None:
        return None
    tokens = work.prefill_tokens + work.answer_tokens
    cards = config.engine.tensor_parallel
    seconds = 2 * memory.parameters * tokens / (PEAK_SHARE * peak * cards)  # of a question, by all methods
    basis = (
        f"Rough, not measured: 2 x {memory.parameters / 1e6:,.0f} million parameters x {tokens:,.0f} tokens "
        f"for a question (answers as long as they may be), at {PEAK_SHARE:.0%} of the {peak / 1e12:.0f} "
        f"TFLOP/s of {device.name}" + (f", of which a model takes {cards}" if cards > 1 else "")
    )
    rate = len(config.methods) / seconds
    return _estimate(basis, config, rows, shards, rate=rate, rough=True, on_gpu=True)


def _estimate(
    basis: str, config: RunConfig, rows: int, shards: int, *, rate: float, rough: bool, on_gpu: bool
) -> TimeEstimate:
    actors = min(config.ray.max_actors or config.ray.min_actors, shards)
    seconds = rows / (rate * actors)
    asked = config.ray.num_gpus_per_actor
    gpus = config.engine.tensor_parallel if asked is None else asked
    return TimeEstimate(
        basis=basis,
        rough=rough,
        rows_per_second=rate,
        actors=actors,
        seconds=seconds,
        gpu_hours=seconds / 3600 * actors * gpus if on_gpu else None,
    )


def room_of_sample(rows: int, sample: Sample) -> Room:
    """Disk space for the `rows` that are left, from the texts of a sample."""
    texts = [
        (q.question, *q.paraphrases, *(q.answers or ()), *(q.candidates or ())) for q in sample.questions
    ]
    scores = sum(SCORE_BYTES * len(prompt.candidates) for prompt in sample.prompts)
    each = ROW_BYTES + (scores + sum(len(text.encode()) for row in texts for text in row)) / len(texts)
    return Room(int(rows * each), "at most: the sample's texts, which are compressed", False)
