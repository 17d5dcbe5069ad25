"""The Prometheus metrics of a run. Ray's agent on each node serves them, with the prefix `ray_`.

Counters count work: a shard that Ray repeats because a process died is counted again. Labels have few values
for any data: the text of a row or of an error is never a label value.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow.compute as pc
from ray.util import metrics as ray_metrics

from flexray.console.log import RunLabel
from flexray.pipeline.shards import AnsweredShard, PreparedShard

RUN_LABELS = ("run", "dataset")
"""Labels of every metric: the first digits of the run's fingerprint, and the data set's name."""
BOUNDARIES = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800]
"""Bucket boundaries of the histograms, in seconds."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A metric. It has RUN_LABELS as well as `labels`."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    labels: tuple[str, ...]
    help: str


METRICS = (
    Spec("counter", "flexray_rows_total", ("method", "outcome"), "Rows committed."),
    Spec("counter", "flexray_fallback_rows_total", ("reason",), "Committed rows with a fallback."),
    Spec("counter", "flexray_tokens_total", ("kind",), "Tokens that engines computed."),
    Spec("counter", "flexray_engine_seconds_total", ("phase",), "Seconds of engine work, by host clock."),
    Spec("counter", "flexray_mask_cache_total", ("result",), "Lookups in the cache of block masks."),
    Spec("histogram", "flexray_batch_seconds", (), "Time that an engine took to answer one call's shards."),
    Spec("histogram", "flexray_commit_seconds", (), "Time to score and commit one shard."),
    Spec("gauge", "flexray_rows_remaining", (), "Rows that this start still has to commit."),
    Spec("gauge", "flexray_rows_in_flight", (), "Rows that an actor is answering; one series per actor."),
    Spec("gauge", "flexray_gpu_memory_bytes", ("kind",), "Memory that torch holds on an actor's GPU."),
)

Reason = Literal["out_of_memory", "not_supported", "compiler", "other"]
_REASON = re.compile(r"(?:flex|sdpa|eager): (\w+): ")  # as engine.fallback.describe writes it
_CLASSES: dict[str, Reason] = {
    "OutOfMemoryError": "out_of_memory",
    "NotImplementedError": "not_supported",
}


def classify(fallback_reason: str) -> Reason:
    """The class of the error that made a row fall back to another backend or to a smaller batch.

    >>> classify("flex: InductorError: no compiler; sdpa: OutOfMemoryError: ..")
    'compiler'
    """
    match = _REASON.match(fallback_reason)
    if match is None:
        return "other"
    return _CLASSES.get(match[1], "compiler")  # engine.fallback.handled_errors handles no other errors


@dataclass(slots=True)
class RowCounts:
    """Numbers of output rows; there is one row for each question and method."""

    outcomes: Counter[tuple[str, str]]
    """Rows by method and outcome ("answered" or "error")."""
    fallbacks: Counter[Reason]

    @classmethod
    def of(cls, shard: AnsweredShard, methods: Sequence[str]) -> RowCounts:
        """Count the rows of a shard. All answers of a row have the same error and the same fallback."""
        counts = cls(Counter(), Counter())
        first = pc.list_element(shard.answers, 0)
        errors, reasons = (pc.struct_field(first, name).to_pylist() for name in ("error", "fallback_reason"))
        of_row = [method for method in methods for _ in range(shard.questions.num_rows)]
        for method, error, reason in zip(of_row, errors, reasons, strict=True):
            counts.outcomes[method, "error" if error else "answered"] += 1
            if reason:
                counts.fallbacks[classify(reason)] += 1
        return counts


def engine_counts(shards: Iterable[AnsweredShard]) -> Iterator[tuple[str, float, dict[str, str]]]:
    """The engine's counters for a batch of shards, as metric name, number and labels."""
    for stats in (shard.engine_stats for shard in shards):
        for kind in ("context", "prefill", "generated"):
            yield "flexray_tokens_total", stats[f"{kind}_tokens"], {"kind": kind}
        for phase in ("prefill", "decode"):
            yield "flexray_engine_seconds_total", stats[f"{phase}_seconds"], {"phase": phase}
        for result, key in (("hit", "hits"), ("miss", "misses")):
            yield "flexray_mask_cache_total", stats["mask_cache"][key], {"result": result}


class Metrics:
    """The metrics of one run in one process."""

    def __init__(self, label: RunLabel, methods: Sequence[str]):
        self._labels = {"run": label.fingerprint, "dataset": label.dataset}
        self._methods = methods

    def remaining(self, rows: int) -> None:
        """Set how many rows this start still has to commit; called in the driver."""
        _metric("flexray_rows_remaining").set(rows, self._labels)

    def answering(self, shards: Iterable[PreparedShard]) -> None:
        """Set the shards that this actor is answering; () for none."""
        questions = sum(len(shard.questions) for shard in shards)
        _metric("flexray_rows_in_flight").set(questions * len(self._methods), self._labels)

    def took(self, seconds: float) -> None:
        """Count the time that this actor took for a batch of shards."""
        _metric("flexray_batch_seconds").observe(seconds, self._labels)

    def answered(self, shards: Sequence[AnsweredShard]) -> None:
        """Count a batch of shards that this actor has answered."""
        for name, number, labels in engine_counts(shards):
            self._count(name, number, **labels)
        import torch  # here, because only actors need it, not the tasks that commit

        if torch.cuda.is_initialized():
            memory = {"used": torch.cuda.memory_allocated(), "reserved": torch.cuda.memory_reserved()}
            for kind, number in memory.items():
                _metric("flexray_gpu_memory_bytes").set(number, self._labels | {"kind": kind})

    def committed(self, shard: AnsweredShard, seconds: float) -> None:
        """Count a shard that this worker has committed."""
        _metric("flexray_commit_seconds").observe(seconds, self._labels)
        counts = RowCounts.of(shard, self._methods)
        for (method, outcome), rows in counts.outcomes.items():
            self._count("flexray_rows_total", rows, method=method, outcome=outcome)
        for reason, rows in counts.fallbacks.items():
            self._count("flexray_fallback_rows_total", rows, reason=reason)

    def _count(self, name: str, number: float, **labels: str) -> None:
        if number > 0:  # Ray does not accept 0
            _metric(name).inc(number, self._labels | labels)


@functools.cache
def _metric(name: str) -> Any:
    """Ray's metric of this name, made once in each process."""
    spec = next(spec for spec in METRICS if spec.name == name)
    labels = RUN_LABELS + spec.labels
    if spec.kind == "histogram":
        return ray_metrics.Histogram(name, spec.help, BOUNDARIES, labels)
    make = ray_metrics.Counter if spec.kind == "counter" else ray_metrics.Gauge
    return make(name, spec.help, labels)
