"""Rows, backends and times from the manifests of committed shards, for one shard and added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flexray.evaluation import ScoreCounts
from flexray.sink import AnyRecord, Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkSummary(ScoreCounts):
    """The rows of a shard, of all methods, and the time and work they took; or of several shards added up."""

    prompt_tokens: int = 0
    seconds: float = 0.0
    backend_used: Counter[str] = field(default_factory=Counter)  # rows; "" counts those of no backend
    fallback_reason: Counter[str] = field(default_factory=Counter)  # rows that needed a fallback
    finish_reason: Counter[str] = field(default_factory=Counter)  # rows
    engine: Counter[str] = field(default_factory=Counter)  # its counters; 0 where a manifest does not say

    @classmethod
    def of(cls, manifest: Manifest) -> WorkSummary:
        """What a manifest says."""
        stats = manifest.accounting
        calls = (manifest.engine_stats, *manifest.engine_stats.get("retries", ()))
        return cls(
            rows=stats.rows,
            errors=stats.errors,
            scored=stats.scored,
            correct=stats.correct,
            prompt_tokens=stats.prompt_tokens,
            seconds=manifest.seconds,
            backend_used=Counter(stats.backend_used),
            fallback_reason=Counter({reason: n for reason, n in stats.fallback_reason.items() if reason}),
            finish_reason=Counter(stats.finish_reason),
            engine=sum(map(_numbers, calls), Counter()),
        )

    @property
    def fallbacks(self) -> int:
        """Rows that needed another backend, or fewer rows at once."""
        return self.fallback_reason.total()

    @property
    def tokens_per_step(self) -> float | None:
        """Mean number of sequences in a decoding step; None: nothing was decoded."""
        steps = self.engine["decode_steps"]
        return self.engine["generated_tokens"] / steps if steps else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """A committed shard."""

    shard_id: str
    work: WorkSummary
    committed: float = 0.0  # seconds since 1970
    revised: bool = False  # its error rows were retried: `committed` is of the last time, its seconds of all

    @classmethod
    def of(cls, manifest: Manifest) -> Shard:
        """What a manifest says."""
        return cls(
            shard_id=manifest.shard_id,
            work=WorkSummary.of(manifest),
            committed=datetime.fromisoformat(manifest.created).timestamp(),
            revised=manifest.revision > 0,
        )

    @property
    def span(self) -> tuple[float, float]:
        """When it was worked on, in seconds since 1970."""
        return self.committed - self.work.seconds, self.committed


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTotals:
    """A run's committed shards, added up."""

    shards: list[Shard]
    work: WorkSummary
    busy_seconds: float  # in which some shard was worked on
    start: float  # seconds since 1970
    end: float
    timed: list[Shard]  # those that were committed once; the others are revised

    @classmethod
    def of(cls, record: AnyRecord, manifests: Iterable[Manifest]) -> RunTotals:
        """Add up the shards of these manifests."""
        shards = list(map(Shard.of, manifests))
        timed = [shard for shard in shards if not shard.revised]
        started = [shard.span[0] for shard in timed]
        if not record.rebuilt or not started:  # else it was written after the run
            started.append(datetime.fromisoformat(record.created).timestamp())
        return cls(
            shards=shards,
            work=sum((shard.work for shard in shards), WorkSummary()),
            busy_seconds=_covered(shard.span for shard in timed),
            start=min(started),
            end=max((shard.committed for shard in timed), default=min(started)),
            timed=timed,
        )

    @property
    def wall_seconds(self) -> float | None:
        """From the first start to the last commit, pauses included; None: not known."""
        return self.end - self.start if self.timed else None

    @property
    def rows_per_second(self) -> float | None:
        """Of the timed shards, while they were in work; None: not measured."""
        rows = sum(shard.work.rows for shard in self.timed)
        return rows / self.busy_seconds if self.busy_seconds else None


def _numbers(stats: Mapping[str, Any]) -> Counter[str]:
    """The counters of a call of the engine."""
    return Counter({name: value for name, value in stats.items() if isinstance(value, int | float)})


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of spans."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered
