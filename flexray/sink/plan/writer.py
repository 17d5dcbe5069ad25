"""The third step of planning: what is missing is written into plan files, whose row groups are shards.

The rows that lack the same methods are one stream, in the order of the data set. It is cut into shards, and
these into files, by counts alone. So the plan depends on the data only, not on how they were read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from flexray.data.repeats import Repeat, mark_repeats
from flexray.sink.folder import OutputFolder
from flexray.sink.plan.compare import CHANGES_SCHEMA
from flexray.sink.plan.files import write_left_out, write_part
from flexray.sink.plan.scratch import Scratch, Slice
from flexray.sink.records import IdsFile, PlanPart

FILE_ROWS = 100_000
"""Of a plan file, at most, but for the rest of a shard."""
FILE_PIECES = 16
"""That a plan file takes rows from, but for the rest of a shard."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A piece of the data set, and what was found out about its rows."""

    rows: Slice
    changes: tuple[Slice, ...]
    """CHANGES_SCHEMA; in no order."""


@dataclass(frozen=True, slots=True)
class Take:
    """Some of the rows of a piece that lack the methods."""

    piece: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True, slots=True)
class FileTask:
    """A plan file that is to be written."""

    number: int
    first_shard: int
    shard_rows: int
    missing: int
    """The methods, as bits."""
    methods: tuple[str, ...]
    takes: tuple[tuple[Compiled, Take], ...]


def cut_files(counts: Mapping[int, int], shard_rows: int) -> Iterator[list[Take]]:
    """The files of a stream of rows: whole shards, but for the last one.

    Args:
        counts: rows of the stream in each piece, by its number, in order.
    """
    file: list[Take] = []
    rows, whole = 0, max(FILE_ROWS // shard_rows, 1) * shard_rows
    for piece, count in counts.items():
        start = 0
        while start < count:
            most = whole - rows if len(file) < FILE_PIECES else -rows % shard_rows
            stop = min(count, start + most)
            file.append(Take(piece, start, stop))
            rows, start = rows + stop - start, stop
            if rows == whole or (len(file) >= FILE_PIECES and not rows % shard_rows):
                yield file
                file, rows = [], 0
    if file:
        yield file


def write_file(
    folder: OutputFolder,
    scratch: Scratch,
    fingerprint: str,
    wanted: int,
    id_field: str | None,
    task: FileTask,
) -> PlanPart:
    """Write a plan file. Raises OSError.

    Args:
        wanted: the methods, as bits, that a row lacks of which nothing was found out.
        id_field: as that of a Summary.
    """
    tables, flags = [], []
    for piece, take in task.takes:
        rows, missing, replaces = read_piece(scratch, piece, wanted, id_field)
        places = np.flatnonzero(missing == task.missing)[take.start : take.stop]
        in_a_row = places[-1] - places[0] + 1 == len(places)
        tables.append(rows.slice(places[0], len(places)) if in_a_row else rows.take(pa.array(places)))
        flags.append(replaces[places])
    table = pa.concat_tables(tables).combine_chunks()
    return write_part(
        folder,
        task.number,
        table,
        shards=shard_sizes(table.num_rows, task.shard_rows),
        first_shard=task.first_shard,
        methods=task.methods,
        fingerprint=fingerprint,
        replaces=pa.array(np.concatenate(flags)),
    )


def shard_sizes(rows: int, shard_rows: int) -> list[int]:
    """Rows of each shard of a file."""
    return [min(shard_rows, rows - start) for start in range(0, rows, shard_rows)]


def read_piece(
    scratch: Scratch, piece: Compiled, wanted: int, id_field: str | None
) -> tuple[pa.Table, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The rows of a piece (PLAN_SCHEMA) with distinct ids; and for each the methods that it lacks, as bits,
    and whether it replaces a committed row."""
    (rows,) = scratch.get([piece.rows])
    missing, replaces = np.full(rows.num_rows, wanted), np.zeros(rows.num_rows, bool)
    if not piece.changes:
        return rows, missing, replaces
    changes = pa.concat_tables([CHANGES_SCHEMA.empty_table(), *scratch.get(piece.changes)]).sort_by("place")
    places = changes["place"].to_numpy()
    missing[places], replaces[places] = changes["missing"].to_numpy(), changes["replaces"].to_numpy()
    again = changes.filter(changes["new_id"].is_valid()).to_pylist()
    repeats = [Repeat(row["place"], -1, row["new_id"]) for row in again]
    firsts = [(row["first_file"], row["first_row"]) for row in again]
    return mark_repeats(rows, repeats, firsts, id_field).combine_chunks(), missing, replaces


def write_ids(folder: OutputFolder, scratch: Scratch, number: int, found: Sequence[Slice]) -> IdsFile:
    """Write the ids of the rows that a recipe does not name. Raises OSError."""
    return write_left_out(folder, number, (scratch.get([where])[0] for where in found))
