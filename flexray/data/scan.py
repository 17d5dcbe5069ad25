"""Plan a run: find the id and the shard of each row in one pass over the files."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice

import pyarrow as pa

from flexray.config.data import DataConfig
from flexray.data.files import SourceFile
from flexray.data.identity import identify, make_distinct
from flexray.data.question import ShardSpec
from flexray.data.record import Record
from flexray.data.source import Source
from flexray.errors import DataError
from flexray.storage import describe, redact, starting


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """The result of a scan."""

    shards: tuple[ShardSpec, ...]  # in order of file and row; each row is in exactly one shard
    num_rows: int
    data_digest: str  # sha256 of row ids and mapped content in order, independent of file names
    files: tuple[str, ...]  # the files that have rows of the run


def scan(config: DataConfig) -> Scan:
    """Read the whole data set once, give each row an id and split the rows into shards.

    Runs on the driver. All row ids are in memory, and the records of one shard (of one file for format json).
    A row's digest covers what templates and joined paraphrases contribute to it. Faulty rows are planned like
    other rows; `read_shard` reports them.

    Raises:
        DataError: a file cannot be read, no record of a file has a required field, or there are no rows.
    """
    shards: list[ShardSpec] = []
    row_ids: list[str] = []
    rows = array("q")  # row numbers in the files; those of grouped records are not consecutive
    total = sha256()
    with starting():
        source = _open(config)
        files = source.files
    for file in files:
        if config.limit is not None and len(row_ids) >= config.limit:
            break
        ranged = file.format == "jsonl" and source.has_spans
        room = None if config.limit is None else config.limit - len(row_ids)
        for records in _grouped(_read(source, file, room), config.shard_rows):
            identities = [identify(record, config) for record in records]
            digest = sha256()
            for identity in identities:
                total.update(identity.digest)
                digest.update(identity.digest)
            row_ids += [identity.row_id for identity in identities]
            rows.extend(record.row for record in records)
            shards.append(
                ShardSpec(
                    shard_id=f"{config.name}-{config.split}-{len(shards):06d}",
                    file=file.path,
                    format=file.format,
                    first_row=records[0].row,
                    num_rows=len(records),
                    byte_range=(records[0].span[0], records[-1].span[1]) if ranged else None,
                    digest=digest.hexdigest(),
                )
            )
    if not shards:
        raise DataError(f"{', '.join(config.sources)}: no rows in any file. Correct data.files.")
    source.check_joined()
    return Scan(
        shards=_named(shards, row_ids, rows),
        num_rows=len(row_ids),
        data_digest=total.hexdigest(),
        files=tuple(dict.fromkeys(shard.file for shard in shards)),
    )


def _open(config: DataConfig) -> Source:
    try:
        return Source(config)
    except (OSError, pa.ArrowException) as e:
        files = ", ".join((*config.template_files, *config.paraphrase_files))
        raise DataError(f"{redact(files)}: cannot be read: {describe(e)}") from e


def _read(source: Source, file: SourceFile, room: int | None) -> Iterator[Record]:
    try:
        yield from source.read(file, room)
    except (OSError, pa.ArrowException) as e:
        raise DataError(f"{redact(file.path)}: cannot be read: {describe(e)}") from e


def _grouped(records: Iterator[Record], size: int) -> Iterator[list[Record]]:
    while group := list(islice(records, size)):
        yield group


def _named(shards: list[ShardSpec], row_ids: list[str], rows: Sequence[int]) -> tuple[ShardSpec, ...]:
    """The shards with distinct row ids. All ids must be known first, because `x#2` may itself be an id."""
    distinct, duplicate_of = make_distinct(row_ids)
    starts, start = [], 0
    for shard in shards:
        starts.append(start)
        start += shard.num_rows
    duplicates: list[list[tuple[int, str, int]]] = [[] for _ in shards]
    for index, first in duplicate_of.items():
        here, there = bisect_right(starts, index) - 1, bisect_right(starts, first) - 1
        duplicates[here].append((index - starts[here], shards[there].file, rows[first]))
    return tuple(
        replace(
            shard, row_ids=tuple(distinct[start : start + shard.num_rows]), duplicate_of=tuple(duplicates[i])
        )
        for i, (shard, start) in enumerate(zip(shards, starts, strict=True))
    )
