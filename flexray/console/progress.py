"""How far a run is: what it tells while it runs, and the plain lines that are made of it.

Rows come in bursts: calls of the engine answer several shards, and several actors are at work. So the rate is
taken over the last minutes, from the end of one burst on, and neither start-up nor compilation is in it. Of a
burst that has just begun as much is expected as of the one before.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from flexray.console.terminal import duration

LogLine = Callable[[str], None]
Clock = Callable[[], float]
"""Seconds, from any beginning."""

WINDOW_SECONDS = 120.0
"""What is recent; a run with longer pauses looks at the last one."""
LEAST_SECONDS = 1.0
"""No rate is told of less: the shards of one call arrive together."""
MAX_LINES = 100
"""Up to so many shards have a line each."""
LINE_SECONDS = 5.0
"""Between two lines of a run of more shards."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CommittedShard:
    """What came of one shard in this start."""

    shard_id: str
    rows: int  # answered or tried, by all methods
    errors: int  # of them
    fallbacks: int  # of them
    seconds: float  # of work


class Progress(Protocol):
    """Is told how far a run, or a retry, is."""

    def planned(self, *, rows: int, shards: int) -> None:
        """So much is to be done by this start."""

    def committed(self, shard: CommittedShard) -> None:
        """A shard is done."""

    def note(self, line: str) -> None:
        """Anything else that people should know."""


class Tracker:
    """Adds up what is committed, and looks ahead. Elapsed seconds count from when it is made."""

    def __init__(self, clock: Clock = time.monotonic):
        self._clock = clock
        self._start = clock()
        self._recent: deque[tuple[float, int, int]] = (
            deque()
        )  # when a shard came, rows done before it, and then
        self.planned_rows = self.planned_shards = 0
        self.rows = self.shards = self.errors = self.fallbacks = 0

    def plan(self, *, rows: int, shards: int) -> None:
        """What is to be done."""
        self.planned_rows, self.planned_shards = rows, shards

    def add(self, shard: CommittedShard) -> None:
        """Count a shard that has come just now."""
        before, self.rows = self.rows, self.rows + shard.rows
        self.shards += 1
        self.errors += shard.errors
        self.fallbacks += shard.fallbacks
        now = self._clock()
        self._recent.append((now, before, self.rows))
        while len(self._recent) > 2 and now - self._recent[1][0] > WINDOW_SECONDS:
            self._recent.popleft()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    @property
    def rate(self) -> float | None:
        """Recent rows per second; None: too early to say. It falls while the next shard is overdue."""
        if len(self._recent) < 2:
            return None
        times, before, after = zip(*self._recent, strict=True)
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        longest = max(gaps)
        bursts = [0, *(i for i, gap in enumerate(gaps, 1) if gap >= longest / 2)]  # the first shard of each
        begin, end = times[bursts[1] - 1], times[-1]
        if end - begin < LEAST_SECONDS:
            return None
        last = before[bursts[-1]] - before[bursts[-2]]  # the burst before this one, which may have just begun
        rows = before[bursts[-1]] - before[bursts[1]] + max(after[-1] - before[bursts[-1]], last)
        overdue = max(0.0, self._clock() - end - longest)
        return float(rows / (end - begin + overdue))

    @property
    def remaining(self) -> float | None:
        """Seconds to the end at this rate; None: too early to say."""
        left = self.planned_rows - self.rows
        if left <= 0:
            return 0.0
        rate = self.rate
        return left / rate if rate else None

    def describe(self) -> str:
        """Rows done, time, rate and what is left, in one line."""
        parts = [f"{self.rows:,}/{self.planned_rows:,} rows", duration(self.elapsed)]
        if (rate := self.rate) is not None:
            parts.append(f"{rate:,.1f} rows/s")
        if (remaining := self.remaining) is not None and self.rows < self.planned_rows:
            parts.append(f"{duration(remaining)} left")
        return ", ".join(parts)


class Lines:
    """Progress as plain lines: one for each shard, or of many shards one every few seconds and the last."""

    def __init__(self, log: LogLine = print, clock: Clock = time.monotonic):
        self._say = log
        self._clock = clock
        self._tracker = Tracker(clock)
        self._untold: list[CommittedShard] = []
        self._told = clock()

    def planned(self, *, rows: int, shards: int) -> None:
        """So much is to be done by this start."""
        self._tracker.plan(rows=rows, shards=shards)

    def committed(self, shard: CommittedShard) -> None:
        """A shard is done."""
        self._tracker.add(shard)
        self._untold.append(shard)
        is_last = self._tracker.shards == self._tracker.planned_shards
        is_due = self._clock() - self._told >= LINE_SECONDS
        if self._tracker.planned_shards <= MAX_LINES or is_due or is_last:
            self._say(f"  {_name(self._untold)}: {_counts(self._untold)} [{self._tracker.describe()}]")
            self._untold.clear()
            self._told = self._clock()

    def note(self, line: str) -> None:
        """Anything else that people should know."""
        self._say(line)


def _name(shards: list[CommittedShard]) -> str:
    return shards[0].shard_id if len(shards) == 1 else f"{len(shards)} shards"


def _counts(shards: list[CommittedShard]) -> str:
    rows, errors, fallbacks = (
        sum(getattr(shard, count) for shard in shards) for count in ("rows", "errors", "fallbacks")
    )
    fell_back = f", {fallbacks} fallbacks" if fallbacks else ""
    return f"{rows} rows, {errors} errors{fell_back}, {sum(s.seconds for s in shards):.1f} s"
