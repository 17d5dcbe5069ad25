"""Metrics and log events of the pipeline, from the actors and from the tasks that commit."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from flexray.console.log import Log, RunLabel, start_logging
from flexray.pipeline.crash_tracker import Attempt
from flexray.pipeline.metrics import Metrics, RowCounts
from flexray.pipeline.shards import AnsweredShard, PreparedShard


class ActorTelemetry:
    """Metrics and log of one actor."""

    def __init__(self, label: RunLabel, methods: Sequence[str]):
        start_logging(label.log)
        context = ray.get_runtime_context()
        self._log = Log(
            run=label.run_id,
            dataset=label.dataset,
            actor=context.get_actor_id(),
            node=ray.util.get_node_ip_address(),
        )
        self._metrics = Metrics(label, methods)
        self._methods = methods
        self._start = time.perf_counter()

    def ready(self) -> None:
        """Report that the model is loaded."""
        self._metrics.answering(())
        self._log.info("actor.ready", seconds=round(time.perf_counter() - self._start, 3))

    @contextlib.contextmanager
    def batch(self, shards: Sequence[PreparedShard], attempts: Sequence[Attempt]) -> Iterator[None]:
        """Report a batch of shards that is answered in this context."""
        for shard, attempt in zip(shards, attempts, strict=True):
            if attempt.crashes:
                counts = {"deaths": attempt.crashes, "rows_given_up": len(attempt.given_up)}
                self._log.warning("shard.repeated", shard_id=shard.spec.shard_id, **counts)
        start = time.perf_counter()
        self._metrics.answering(shards)
        yield
        self._metrics.answering(())
        self._metrics.took(time.perf_counter() - start)

    def failed(self, error: Exception, shards: Sequence[PreparedShard]) -> None:
        """Report that a batch has not been answered. Can be called in another thread."""
        self._log.error("batch.failed", error, shard_ids=[shard.spec.shard_id for shard in shards])

    def answered(self, shards: Sequence[AnsweredShard]) -> None:
        """Report the answers of a batch. Can be called in another thread."""
        self._metrics.answered(shards)
        for shard in shards:
            self._log_answered(shard)

    def _log_answered(self, shard: AnsweredShard) -> None:
        counts = RowCounts.of(shard, self._methods)
        write = self._log.warning if counts.fallbacks else self._log.info
        write(
            "shard.answered",
            shard_id=shard.spec.shard_id,
            rows=counts.outcomes.total(),
            errors=sum(rows for (_, outcome), rows in counts.outcomes.items() if outcome == "error"),
            fallbacks=counts.fallbacks.total(),
            fallback_reasons=dict(counts.fallbacks),
            seconds=round(shard.seconds, 3),
        )


@dataclass(frozen=True, slots=True)
class TelemetryCommit:
    """A commit function that reports metrics; sent to Ray's workers."""

    commit: Callable[[AnsweredShard], dict[str, Any]]
    label: RunLabel
    methods: Sequence[str]

    def __call__(self, shard: AnsweredShard) -> dict[str, Any]:
        """Commit a shard, and count it."""
        start_logging(self.label.log)
        start = time.perf_counter()
        result = self.commit(shard)
        Metrics(self.label, self.methods).committed(shard, time.perf_counter() - start)
        return result


def report_remaining(label: RunLabel, rows: int) -> None:
    """Set the metric of the rows that this start still has to commit."""
    Metrics(label, ()).remaining(rows)
