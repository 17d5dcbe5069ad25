"""The progress of a run: the interface that runs report to, the rate and time left, and plain lines of text.

Rows arrive in bursts, because a call of the engine answers several shards and several actors work at once. So
the rate covers the last minutes and is measured from the end of one burst, which leaves out start-up and
compilation. A burst that has just begun is expected to be as large as the one before.
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
"""Seconds since any fixed moment."""

WINDOW_SECONDS = 120.0
"""The period of the rate. If the pauses between bursts are longer, the last one."""
LEAST_SECONDS = 1.0
"""No rate is given for a shorter period: the shards of one call arrive together."""
MAX_LINES = 100
"""With more shards than this, not each has a line."""
LINE_SECONDS = 5.0
"""Time between two lines of a run with more shards."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CommittedShard:
    """The outcome of one shard in this start."""

    shard_id: str
    rows: int  # output rows by all methods, errors included
    errors: int  # among the rows
    fallbacks: int  # among the rows
    empty: int = 0  # answers without a text, among the rows
    seconds: float  # of work


class Progress(Protocol):
    """Receives the progress of a run or a retry."""

    def planned(self, *, rows: int, shards: int) -> None:
        """Called once, with what this start is to do."""

    def committed(self, shard: CommittedShard) -> None:
        """Called when a shard is committed."""

    def note(self, line: str) -> None:
        """Called with any other line for people."""


class Tracker:
    """Counts what is committed, and estimates the rate and the time left. Time starts at its creation."""

    def __init__(self, clock: Clock = time.monotonic):
        self._clock = clock
        self._start = clock()
        # for each recent shard: when it was committed, rows done before it, rows done with it
        self._recent: deque[tuple[float, int, int]] = deque()
        self.planned_rows = self.planned_shards = 0
        self.rows = self.shards = self.errors = self.fallbacks = 0

    def plan(self, *, rows: int, shards: int) -> None:
        """Set what is to be done."""
        self.planned_rows, self.planned_shards = rows, shards

    def add(self, shard: CommittedShard) -> None:
        """Count a shard that was committed just now."""
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
        """Recent rows per second; None: too early to tell. Falls while the next shard is overdue."""
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
        """Seconds until the end at this rate; None: too early to tell."""
        left = self.planned_rows - self.rows
        if left <= 0:
            return 0.0
        rate = self.rate
        return left / rate if rate else None

    def describe(self) -> str:
        """Rows done, errors and fallbacks among them, time, rate and time left, in one line."""
        parts = [f"{self.rows:,}/{self.planned_rows:,} rows"]
        parts += [f"{self.errors:,} errors"] * (self.errors > 0)
        parts += [f"{self.fallbacks:,} fallbacks"] * (self.fallbacks > 0)
        parts.append(duration(self.elapsed))
        if (rate := self.rate) is not None:
            parts.append(f"{rate:,.1f} rows/s")
        if (remaining := self.remaining) is not None and self.rows < self.planned_rows:
            parts.append(f"{duration(remaining)} left")
        return ", ".join(parts)


class Lines(Progress):
    """Progress as plain lines: one for each shard; with many shards one every few seconds, and the last."""

    def __init__(self, log: LogLine = print, clock: Clock = time.monotonic):
        self._log = log
        self._clock = clock
        self._tracker = Tracker(clock)
        self._unreported: list[CommittedShard] = []
        self._last_line = clock()

    def planned(self, *, rows: int, shards: int) -> None:
        self._tracker.plan(rows=rows, shards=shards)

    def committed(self, shard: CommittedShard) -> None:
        self._tracker.add(shard)
        self._unreported.append(shard)
        is_last = self._tracker.shards == self._tracker.planned_shards
        is_due = self._clock() - self._last_line >= LINE_SECONDS
        if self._tracker.planned_shards <= MAX_LINES or is_due or is_last:
            shards = self._unreported
            self._log(f"  {_name(shards)}: {_counts(shards)} [{self._tracker.describe()}]")
            shards.clear()
            self._last_line = self._clock()

    def note(self, line: str) -> None:
        self._log(line)


def _name(shards: list[CommittedShard]) -> str:
    return shards[0].shard_id if len(shards) == 1 else f"{len(shards)} shards"


def _counts(shards: list[CommittedShard]) -> str:
    rows, errors, fallbacks = (
        sum(getattr(shard, count) for shard in shards) for count in ("rows", "errors", "fallbacks")
    )
    fell_back = f", {fallbacks} fallbacks" if fallbacks else ""
    return f"{rows} rows, {errors} errors{fell_back}, {sum(s.seconds for s in shards):.1f} s"
