"""Which rows a process was answering when it died, so that a row that kills its process is found and bounded.

Ray starts a dead actor again and repeats its shard, without end. So each piece of a shard is noted before
it is answered. A note that is still open when the shard comes again is a death: the piece is then cut into
PARTS, and a single row that its process died of twice is not tried again but becomes an error row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PARTS = 8
"""Pieces that a deadly piece is cut into: a bad row among 512 costs 512 -> 64 -> 8 -> 1, and once again."""
MAX_DEATHS = 24
"""Of one shard; what is left of its deadly pieces is given up then."""

Piece = tuple[int, int]  # rows [first, last) of a shard


@dataclass(frozen=True, slots=True)
class Attempt:
    """How to answer a shard now."""

    pieces: list[Piece]  # in order, each to be noted before it is answered
    blamed: frozenset[int]  # rows not to be tried again
    crashes: int  # of this shard so far


@dataclass(slots=True)
class CrashTracker:
    """Notes of one run. It lives in one process; those that answer come and go."""

    open: dict[str, Piece] = field(default_factory=dict)
    dead: dict[str, list[Piece]] = field(default_factory=dict)

    def attempt(self, shard_id: str, num_rows: int) -> Attempt:
        """A process takes a shard up; whoever had it before is dead."""
        if (piece := self.open.pop(shard_id, None)) is not None:
            self.dead.setdefault(shard_id, []).append(piece)
        dead = self.dead.get(shard_id, [])
        give_up = len(dead) >= MAX_DEATHS
        pieces: list[Piece] = []
        blamed: set[int] = set()
        row = 0
        while row < num_rows:
            mine = [piece for piece in dead if piece[0] <= row < piece[1]]
            smallest = min((last - first for first, last in mine), default=num_rows * PARTS)
            if (smallest == 1 and mine.count((row, row + 1)) > 1) or (give_up and mine):
                blamed.add(row)
                row += 1
                continue
            size = max(1, smallest // PARTS)
            # a piece does not reach into rows that are to be handled with more care
            borders = [edge for piece in dead for edge in piece if edge > row]
            last = min([row + size, num_rows, *borders])
            pieces.append((row, last))
            row = last
        return Attempt(pieces, frozenset(blamed), len(dead))

    def begin(self, pieces: Mapping[str, Piece]) -> None:
        """Pieces, by shard id, are about to be answered together."""
        self.open.update(pieces)

    def end(self, shard_ids: Iterable[str]) -> None:
        """What was begun of these shards is answered."""
        for shard_id in shard_ids:
            self.open.pop(shard_id, None)
