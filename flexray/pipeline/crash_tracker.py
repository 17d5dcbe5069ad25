"""Which rows a process was answering when it crashed, so that a row that crashes its process is found.

Ray restarts a crashed actor and repeats its shard, without end. So each range of rows is noted before it is
answered. A note that is still open when the shard comes again is a crash: that range is then cut into PARTS,
and a single row that crashed its process twice is not tried again but becomes an error row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PARTS = 8
"""Ranges that a crashed range is cut into: a bad row among 512 costs 512 -> 64 -> 8 -> 1, and once again."""
MAX_CRASHES = 24
"""Of one shard; the rows of its crashed ranges are given up then."""

RowRange = tuple[int, int]  # rows [first, last) of a shard


@dataclass(frozen=True, slots=True)
class Attempt:
    """How to answer a shard now."""

    ranges: list[RowRange]  # in order, each to be noted before it is answered
    given_up: frozenset[int]  # rows not to be tried again
    crashes: int  # of this shard so far


@dataclass(slots=True)
class CrashTracker:
    """The notes of one run. It lives in one process; those that answer come and go."""

    open: dict[str, RowRange] = field(default_factory=dict)
    crashed: dict[str, list[RowRange]] = field(default_factory=dict)

    def attempt(self, shard_id: str, num_rows: int) -> Attempt:
        """A process takes a shard; if a note of the shard is open, the process before it has crashed."""
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
            # a range ends where a crashed one begins or ends, as the rows there are cut differently
            edges = [edge for rows in crashed for edge in rows if edge > row]
            last = min([row + size, num_rows, *edges])
            ranges.append((row, last))
            row = last
        return Attempt(ranges, frozenset(given_up), len(crashed))

    def begin(self, ranges: Mapping[str, RowRange]) -> None:
        """Row ranges, by shard id, are about to be answered together."""
        self.open.update(ranges)

    def end(self, shard_ids: Iterable[str]) -> None:
        """What was begun of these shards is answered."""
        for shard_id in shard_ids:
            self.open.pop(shard_id, None)
