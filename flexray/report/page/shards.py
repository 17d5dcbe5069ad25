"""What the manifests tell: how fast the shards were, and how the engine spent its time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from flexray.sink import Manifest, RunRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineWork:
    """What the engine counted; 0 where a manifest does not say."""

    context_tokens: int
    prefill_tokens: int
    shared_tokens: int
    generated_tokens: int
    decode_steps: int
    prefill_seconds: float
    decode_seconds: float

    @classmethod
    def sum(cls, stats: Iterable[dict[str, Any]]) -> EngineWork:
        """Add up the engine's counters, as manifests hold them."""
        stats = list(stats)
        return cls(**{field.name: sum(part.get(field.name, 0) for part in stats) for field in fields(cls)})

    @property
    def tokens_per_step(self) -> float | None:
        """Answers that were decoded at once, on average; None: nothing was decoded."""
        return self.generated_tokens / self.decode_steps if self.decode_steps else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """A committed shard."""

    shard_id: str
    rows: int
    errors: int
    scored: int
    correct: int
    fallbacks: dict[str, int]  # rows by reason
    seconds: float
    committed: float  # seconds since 1970
    revised: bool  # its error rows were retried: `committed` is of the last time, `seconds` of all
    engine: EngineWork
    mask_cache: Counter[str]  # hits, misses

    @classmethod
    def of(cls, manifest: Manifest) -> Shard:
        """What a manifest says."""
        accounting, stats = manifest.accounting, manifest.engine_stats
        calls = (stats, *stats.get("retries", ()))
        return cls(
            shard_id=manifest.shard_id,
            rows=accounting.rows,
            errors=accounting.errors,
            scored=accounting.scored,
            correct=accounting.correct,
            fallbacks={reason: rows for reason, rows in accounting.fallback_reason.items() if reason},
            seconds=manifest.seconds,
            committed=datetime.fromisoformat(manifest.created).timestamp(),
            revised=manifest.revision > 0,
            engine=EngineWork.sum(calls),
            mask_cache=_add_up(call.get("mask_cache", {}) for call in calls),
        )

    @property
    def accuracy(self) -> float | None:
        """Over all methods, so only of use in a run of one; None: nothing was scored."""
        return self.correct / self.scored if self.scored else None

    @property
    def rows_per_second(self) -> float | None:
        """None: its time was not measured."""
        return self.rows / self.seconds if self.seconds else None

    @property
    def span(self) -> tuple[float, float]:
        """When it was in work, in seconds since 1970."""
        return self.committed - self.seconds, self.committed


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """A run's committed shards, added up."""

    shards: int
    planned_shards: int
    rows: int
    planned_rows: int
    errors: int
    fallbacks: Counter[str]  # rows by reason
    finish_reasons: Counter[str]
    prompt_tokens: int
    engine: EngineWork
    mask_cache: Counter[str]  # hits, misses
    work_seconds: float  # of all shards together
    busy_seconds: float  # in which some shard was in work
    start: float  # seconds since 1970
    end: float
    timed: tuple[Shard, ...]  # those whose commit tells when they were in work
    revised: int  # the others

    @classmethod
    def of(cls, record: RunRecord, manifests: Iterable[Manifest], shards: Sequence[Shard]) -> Totals:
        """Add up shards, and the manifests that they were made of."""
        accounts = [manifest.accounting for manifest in manifests]
        timed = tuple(shard for shard in shards if not shard.revised)
        started = [shard.span[0] for shard in timed]
        if not record.rebuilt or not started:  # else it was written after the run
            started.append(datetime.fromisoformat(record.created).timestamp())
        return cls(
            shards=len(shards),
            planned_shards=record.plan.shards,
            rows=sum(shard.rows for shard in shards),
            planned_rows=record.planned_rows,
            errors=sum(shard.errors for shard in shards),
            fallbacks=_add_up(shard.fallbacks for shard in shards),
            finish_reasons=_add_up(account.finish_reason for account in accounts),
            prompt_tokens=sum(account.prompt_tokens for account in accounts),
            engine=EngineWork.sum(asdict(shard.engine) for shard in shards),
            mask_cache=_add_up(shard.mask_cache for shard in shards),
            work_seconds=sum(shard.seconds for shard in shards),
            busy_seconds=_covered(shard.span for shard in timed),
            start=min(started),
            end=max((shard.committed for shard in timed), default=min(started)),
            timed=timed,
            revised=len(shards) - len(timed),
        )

    @property
    def complete(self) -> bool:
        """Whether every planned shard is committed."""
        return self.shards == self.planned_shards

    @property
    def error_share(self) -> float | None:
        """In [0, 1]; None: there are no rows."""
        return self.errors / self.rows if self.rows else None

    @property
    def fallback_share(self) -> float | None:
        """In [0, 1]; None: there are no rows."""
        return self.fallbacks.total() / self.rows if self.rows else None

    @property
    def wall_seconds(self) -> float | None:
        """From the first start to the last commit, pauses included; None: not known."""
        return self.end - self.start if self.timed else None

    @property
    def rows_per_busy_second(self) -> float | None:
        """None: not measured."""
        return self._timed_rows / self.busy_seconds if self.busy_seconds else None

    @property
    def rows_per_wall_second(self) -> float | None:
        """None: not measured."""
        return self._timed_rows / self.wall_seconds if self.wall_seconds else None

    @property
    def _timed_rows(self) -> int:
        return sum(shard.rows for shard in self.timed)


def _add_up(counters: Iterable[dict[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return total


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of spans."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered
