"""The plan of a run: every row's id and the shard it belongs to, from one pass over the files."""

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
    """A data set as it was found."""

    shards: tuple[ShardSpec, ...]  # in order of file and row; together they hold every row once
    num_rows: int
    data_digest: str  # sha256 over row ids and mapped content in order; not over names of files
    files: tuple[str, ...]  # those that rows were taken from


def scan(config: DataConfig) -> Scan:
    """Read the whole data set once, name its rows and cut it into shards.

    Runs on the driver. Memory: the row ids, and the records of one shard (format json: of one file).
    What templates and joined paraphrases make of a row is part of its digest.
    Faulty rows are planned like any other; `read_shard` reports them.

    Raises:
        DataError: a file that cannot be read, a required field that no record of a file has, no rows.
    """
    shards: list[ShardSpec] = []
    row_ids: list[str] = []
    rows = array("q")  # their numbers in their files, which of gathered ones are not consecutive
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
    """The shards with their rows' distinct ids. All ids must be known: `x#2` may be a real one."""
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
