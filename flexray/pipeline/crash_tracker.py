"""Finds the row that crashes its process, from the rows that were being answered at each crash.

Ray restarts a crashed actor and repeats its shard, with no limit. So each range of rows is recorded before it
is answered, and the record is removed afterwards. If a record still exists when the shard is tried again, the
process has crashed: that range is then split into PARTS. A single row that crashed its process twice is not
tried again but becomes an error row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PARTS = 8
"""A crashed range is split into this many ranges: for one bad row among 512, the ranges that crash have 512,
64, 8, 1 and again 1 rows."""
MAX_CRASHES = 24
"""The most crashes of one shard. After that, all rows of its crashed ranges become error rows."""

RowRange = tuple[int, int]  # rows [first, last) of a shard


@dataclass(frozen=True, slots=True)
class Attempt:
    """How to answer a shard this time."""

    ranges: list[RowRange]  # in order; each is recorded before it is answered
    given_up: frozenset[int]  # rows that are not tried again
    crashes: int  # crashes of this shard so far


@dataclass(slots=True)
class CrashTracker:
    """The records of one run, kept in one process. The processes that answer may crash and be replaced."""

    open: dict[str, RowRange] = field(default_factory=dict)
    crashed: dict[str, list[RowRange]] = field(default_factory=dict)

    def attempt(self, shard_id: str, num_rows: int) -> Attempt:
        """Called when a process starts a shard. If a record of the shard exists, its last process crashed."""
        if (rows := self.open.pop(shard_id, None)) is not None:
            self.crashed.setdefault(shard_id, []).append(rows)
        crashed = self.crashed.get(shard_id, [])
        at_limit = len(crashed) >= MAX_CRASHES
        ranges: list[RowRange] = []
        given_up: set[int] = set()
        row = 0
        while row < num_rows:
            around = [(first, last) for first, last in crashed if first <= row < last]
            smallest = min((last - first for first, last in around), default=num_rows * PARTS)
            if (smallest == 1 and around.count((row, row + 1)) > 1) or (at_limit and around):
                given_up.add(row)
                row += 1
                continue
            size = max(1, smallest // PARTS)
            # a range ends where a crashed range begins or ends, because rows beyond it are split differently
            edges = [edge for rows in crashed for edge in rows if edge > row]
            last = min([row + size, num_rows, *edges])
            ranges.append((row, last))
            row = last
        return Attempt(ranges, frozenset(given_up), len(crashed))

    def begin(self, ranges: Mapping[str, RowRange]) -> None:
        """Record row ranges, by shard id, that one engine call is about to answer."""
        self.open.update(ranges)

    def end(self, shard_ids: Iterable[str]) -> None:
        """Remove the records of these shards: their rows are answered."""
        for shard_id in shard_ids:
            self.open.pop(shard_id, None)
