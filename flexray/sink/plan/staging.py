"""The first step of planning: sources are read and checked, and their rows kept in pieces with an index each.

A piece has at most some ten thousand rows. Its index has, by bucket, what is compared: row id, digest of the
content, fault and place. A bucket has all rows of the ids that can be in each other's way: `x`, and `x#2` of
a row that repeats it. So buckets can be compared with what is committed by themselves.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flexray.config.data import DataConfig
from flexray.data import (
    PLAN_SCHEMA,
    Range,
    Summary,
    check_files,
    check_summaries,
    last_asked,
    list_ranges,
    read_range,
    up_to,
)
from flexray.data.readers import find_versions
from flexray.data.repeats import family_of
from flexray.data.selection import id_versions
from flexray.errors import DataError, OutputError
from flexray.sink.folder import OutputFolder
from flexray.sink.plan.scratch import FolderScratch, Scratch, Slice
from flexray.sink.plan.site import Mapper, Site, in_process
from flexray.sink.records import RunRecord

IN_PROCESS_BYTES = 64 * 2**20
"""Of sources, and of what they are compared with, that is not worth other processes."""
ROW_BYTES = 400
"""Of a committed row, about, as if it were read from sources."""
PIECE_ROWS = 50_000
UNIT_BYTES = 16 * 2**20
"""Small files are read together until they have so many."""
BUCKET_BYTES = 256 * 2**20
"""Of sources, for each bucket."""
COMPARED = (
    pa.field("row_id", pa.string()),
    pa.field("content", pa.binary(16)),
    pa.field("faulty", pa.bool_()),
    pa.field("place", pa.int64()),  # row in its piece, or in its plan file
)
INDEX_SCHEMA = pa.schema(
    [
        *COMPARED,
        pa.field("source_file", pa.dictionary(pa.int32(), pa.string())),
        pa.field("source_row", pa.int64()),
    ]
)
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of the data set, in order."""

    rows: Slice
    """PLAN_SCHEMA; row ids are not yet distinct."""
    num_rows: int
    index: tuple[Slice, ...]
    """Of each bucket, INDEX_SCHEMA."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A data set that was read."""

    pieces: tuple[Piece, ...]
    id_field: str | None
    """As that of a Summary."""
    buckets: int
    site: Site

    def tables(self) -> Iterator[pa.Table]:
        """The rows of each piece (PLAN_SCHEMA), as they were read."""
        for piece in self.pieces:
            yield from self.site.scratch.get([piece.rows])


@dataclass(frozen=True, slots=True)
class Sources:
    """The parts of a data set, found and not yet read."""

    config: DataConfig
    ranges: tuple[Range, ...]

    @classmethod
    def find(cls, config: DataConfig) -> Sources:
        """Raises UserError as `list_ranges`."""
        return cls(config, tuple(list_ranges(config)))

    @property
    def bytes(self) -> int:
        """About how many there are to read."""
        return sum(part.bytes for part in self.ranges)

    def stage(self, site: Site, buckets: int) -> Staged:
        """Read all parts.

        Raises:
            DataError: as `flexray.data.scan`.
            OSError: the scratch cannot be written.
        """
        units = list(_units(self.ranges))
        last = {part.files: number for number, part in enumerate(self.ranges)}
        summaries: list[Summary] = []
        of_file: list[Summary] = []
        pieces: list[Piece] = []
        here = partial(stage_unit, self.config, site.scratch, buckets)
        if_visible = partial(_stage_if_visible, self.config, site.scratch, buckets)
        is_hub = any(file.format == "hub" for part in self.ranges for file in part.files)  # in a cache here
        run = map if is_hub else site.map
        for unit, found in zip(units, run(if_visible, units), strict=True):
            read, kept = found or here(unit)
            pieces += kept
            for part, summary in zip(unit.ranges, read, strict=True):
                of_file.append(summary)
                if last[part.files] == len(summaries):
                    check_files(of_file)
                    of_file = []
                summaries.append(summary)
        check_summaries(self.config, summaries)
        if (last_place := last_asked(self.config, summaries)) is not None:
            leave = partial(_left, self.config, site.scratch, buckets, last_place)
            pieces = [piece for found in site.map(leave, list(enumerate(pieces))) for piece in found]
        return Staged(tuple(pieces), summaries[0].id_field, buckets, site)


@dataclass(frozen=True, slots=True)
class Unit:
    """What one task reads: some parts in a row."""

    number: int
    ranges: tuple[Range, ...]


def stage(
    config: DataConfig, folder: OutputFolder, run: RunRecord | None, distribute: Mapper | None = None
) -> Staged:
    """Read a data set once: in this process, or with `distribute` if it, or the table, is large.

    Args:
        folder: keeps what is read by other processes, until `clear_scratch`.
        run: the table's record; None: there is no table yet.

    Raises:
        UserError: as `flexray.data.scan`.
        OutputError: the folder cannot be written.
    """
    sources = Sources.find(config)
    size = sources.bytes + ROW_BYTES * (run.planned_rows if run else 0)
    site = in_process()
    if distribute is not None and size > IN_PROCESS_BYTES:
        site = Site(distribute, FolderScratch.new(folder))
    try:
        return sources.stage(site, buckets=size // BUCKET_BYTES + 1)
    except OSError as e:
        raise OutputError(f"{folder}: the data set cannot be kept while the run is planned: {e}") from e


def stage_table(table: pa.Table, site: Site | None = None, buckets: int = 1) -> Staged:
    """A data set that is in memory (PLAN_SCHEMA), with distinct ids."""
    site = site or in_process()
    pieces = tuple(_pieces([table], site.scratch, buckets, "table"))
    return Staged(pieces, None, buckets, site)


def stage_unit(
    config: DataConfig, scratch: Scratch, buckets: int, unit: Unit
) -> tuple[list[Summary], list[Piece]]:
    """Read the rows of a unit and keep them. Raises as `Sources.stage`."""
    summaries: list[Summary] = []

    def tables() -> Iterator[pa.Table]:
        for part in unit.ranges:
            reader = read_range(config, part)
            yield from reader
            summaries.append(reader.summary)
            if part.is_whole_file:  # a bad one is told before a later one is read
                check_files(summaries[-1:])

    return summaries, list(_pieces(tables(), scratch, buckets, f"rows-{unit.number:05d}"))


def _left(
    config: DataConfig, scratch: Scratch, buckets: int, last: int, numbered: tuple[int, Piece]
) -> list[Piece]:
    """A piece without the rows that are not asked; [] if it has no others. Raises OSError."""
    number, piece = numbered
    (rows,) = scratch.get([piece.rows])
    rows = up_to(rows, config, last)
    return list(_pieces([rows], scratch, buckets, f"asked-{number:05d}"))


def by_bucket(index: pa.Table, buckets: int) -> list[pa.Table]:
    """The rows of each bucket, by their `row_id`, in order."""
    if buckets == 1:
        return [index]
    ids = family_of(index["row_id"].combine_chunks()).cast(pa.binary()).to_pylist()
    of_row = np.fromiter(map(crc32, ids), np.uint32, len(ids)) % buckets
    order = np.argsort(of_row, kind="stable")
    ends = np.searchsorted(of_row[order], np.arange(buckets + 1))
    ordered = index.take(pa.array(order)).combine_chunks()
    return [ordered.slice(start, stop - start) for start, stop in pairwise(ends)]


def compared_columns(rows: pa.Table) -> dict[str, Any]:
    """What is compared of rows of a piece or a plan file, in their order (COMPARED)."""
    return {
        "row_id": rows["row_id"],
        "content": rows["content"],
        "faulty": pc.not_equal(rows["error"], ""),
        "place": pa.array(np.arange(rows.num_rows)),
    }


def _stage_if_visible(
    config: DataConfig, scratch: Scratch, buckets: int, unit: Unit
) -> tuple[list[Summary], list[Piece]] | None:
    """As `stage_unit`. None: this machine lacks a file, as local paths are those of the driver's machine."""
    places = (file.path.rpartition("::")[2] for part in unit.ranges for file in part.files)  # of the archive
    if not all(map(os.path.exists, filter(os.path.isabs, places))):
        return None
    try:
        id_versions(config)
        for patterns in (config.template_files, config.paraphrase_files):
            find_versions(patterns, "data")
    except DataError:
        return None
    return stage_unit(config, scratch, buckets, unit)


def _units(ranges: Sequence[Range]) -> Iterator[Unit]:
    number, left = 0, UNIT_BYTES
    together: list[Range] = []
    for part in ranges:
        if together and part.bytes > left:
            yield Unit(number, tuple(together))
            number, together, left = number + 1, [], UNIT_BYTES
        together.append(part)
        left -= part.bytes
    if together:
        yield Unit(number, tuple(together))


def _pieces(tables: Iterable[pa.Table], scratch: Scratch, buckets: int, name: str) -> Iterator[Piece]:
    waiting: list[pa.Table] = []
    number = 0

    def keep() -> Piece:
        rows = pa.concat_tables(waiting).select(PLAN_SCHEMA.names).combine_chunks()
        (where,) = scratch.put(f"{name}-{number}", [rows])
        index = by_bucket(_index(rows), buckets)
        return Piece(where, rows.num_rows, tuple(scratch.put(f"index-{name}-{number}", index)))

    for table in tables:
        for start in range(0, table.num_rows, PIECE_ROWS):
            waiting.append(table.slice(start, PIECE_ROWS))
            if sum(map(len, waiting)) >= PIECE_ROWS:
                yield keep()
                waiting, number = [], number + 1
    if waiting:
        yield keep()


def _index(rows: pa.Table) -> pa.Table:
    source = {"source_file": rows["source_file"].dictionary_encode(), "source_row": rows["source_row"]}
    return pa.table(compared_columns(rows) | source, schema=INDEX_SCHEMA)
