"""The files of a plan: written, read and checked.

plan/<n>.parquet            the questions of a part; each row group is a shard
plan/<n>-left-out.parquet   ids of rows that the last recipe does not name

A plan file says itself which part it is, so that a lost run record can be written again.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flexray.data.plan_rows import PLAN_SCHEMA, complete, with_digests
from flexray.sink.folder import OutputFolder
from flexray.sink.records import (
    PLAN_FOLDER,
    RUN_FILE,
    AnyRecord,
    IdsFile,
    OldRunRecord,
    PlanFile,
    PlanPart,
    RunRecord,
    Selection,
)
from flexray.sink.records.damage import DamageError, DamageKind

FILE_SCHEMA = PLAN_SCHEMA.append(pa.field("replaces", pa.bool_(), nullable=False))
"""Of a plan file: the questions, and whether each replaces an earlier one of the same id."""
IDS_SCHEMA = pa.schema([pa.field("row_id", pa.string(), nullable=False)])
_PART = re.compile(rf"{PLAN_FOLDER}/(\d+)\.parquet")
_OWN = re.compile(r"\d+(-left-out)?\.parquet")
_REPEATED = ["source_file", "relation", "error"]
"""Columns whose values are often equal; a dictionary of the others would cost a third of the time."""
_KEY = b"flexray"
"""The key of a plan file's metadata."""
_ADVICE_DAMAGED = (
    "`flexray repair` moves it aside. Then run again: what is committed stays, and the rest is planned again."
)
_ADVICE_MISSING = "Run again with the same configuration: it is written again, and no row is computed twice."


def write_part(
    folder: OutputFolder,
    number: int,
    table: pa.Table,
    *,
    shards: Sequence[int],
    first_shard: int,
    methods: Sequence[str],
    fingerprint: str,
    replaces: pa.Array,
) -> PlanPart:
    """Write the plan file of a new part. Nobody reads it before the run record names it.

    Args:
        number: of the part; a file of this number that a crash has left is overwritten.
        table: PLAN_SCHEMA.
        shards: the rows of each shard.
        first_shard: the number of the first of them.
        replaces: for each row, whether it replaces a row of an earlier part.

    Raises:
        OSError: a file cannot be written.
    """
    about = {"fingerprint": fingerprint, "first_shard": first_shard, "methods": list(methods)}
    schema = FILE_SCHEMA.with_metadata({_KEY: json.dumps(about).encode()})
    table = table.append_column(FILE_SCHEMA.field("replaces"), replaces)
    stream = io.BytesIO()
    with pq.ParquetWriter(
        stream, schema, compression="zstd", use_dictionary=_REPEATED, write_page_checksum=True
    ) as writer:
        start = 0
        for rows in shards:
            shard = table.slice(start, rows).replace_schema_metadata(schema.metadata)
            writer.write_table(shard, row_group_size=rows)
            start += rows
    assert start == table.num_rows, "each row is in one shard"
    name, data = f"{PLAN_FOLDER}/{number:04d}.parquet", stream.getvalue()
    folder.write_bytes(name, data)
    return PlanPart(
        methods=tuple(methods),
        file=PlanFile(
            file=name,
            first_shard=first_shard,
            shards=_runs(shards),
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        ),
        replaced=pc.sum(replaces).as_py() or 0,
    )


def write_left_out(folder: OutputFolder, number: int, tables: Iterable[pa.Table]) -> IdsFile:
    """Write the rows (`row_id`) that a recipe does not name. Raises OSError."""
    stream, rows = io.BytesIO(), 0
    with pq.ParquetWriter(stream, IDS_SCHEMA, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table.cast(IDS_SCHEMA))
            rows += table.num_rows
    name, data = f"{PLAN_FOLDER}/{number:04d}-left-out.parquet", stream.getvalue()
    folder.write_bytes(name, data)
    return IdsFile(file=name, rows=rows, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def next_number(run: RunRecord | None) -> int:
    """The number of the next plan file."""
    left_out = run.selection.left_out if run else None
    names = [part.file.file for part in run.plan] if run else []
    names += [left_out.file] if left_out else []
    return max((int(re.findall(r"/(\d+)", name)[0]) + 1 for name in names), default=0)


def plan_files(run: RunRecord) -> dict[str, int]:
    """The size of each file that belongs to the plan, by its name relative to the output folder."""
    return {file.file: file.bytes for file in _files(run)}


def is_plan_file(name: str) -> bool:
    """Whether a file in the plan's folder is flexray's, by its name without the folder."""
    return bool(_OWN.fullmatch(name))


def read_part(folder: OutputFolder, part: PlanPart, columns: Sequence[str] | None = None) -> pa.Table:
    """The planned questions of a part (PLAN_SCHEMA), also of withdrawn shards. None: all columns.

    Raises:
        DamageError: the file is missing or was changed.
    """
    data = read_checked(folder, part.file.file, part.file.sha256)
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        table = file.read(columns=columns).replace_schema_metadata(None)
        return complete(table) if columns is None else table
    except (pa.ArrowException, OSError) as e:
        raise damaged(folder, part.file.file, f"is not a Parquet file ({e})") from e


def left_out_ids(folder: OutputFolder, selection: Selection) -> pa.Array:
    """The rows that the last recipe does not name. Raises DamageError as `read_part`."""
    file = selection.left_out
    if file is None:
        return pa.array([], pa.string())
    try:
        table = pq.read_table(pa.BufferReader(read_checked(folder, file.file, file.sha256)))
    except (pa.ArrowException, OSError) as e:
        raise damaged(folder, file.file, f"is not a Parquet file ({e})") from e
    return table["row_id"].combine_chunks()


def plan_damage(folder: OutputFolder, run: AnyRecord) -> dict[str, DamageError]:
    """The plan files that are missing or were changed, by name relative to the output folder."""
    files: list[Any] = [run.plan] if isinstance(run, OldRunRecord) else list(_files(run))
    found = {}
    for file in files:
        try:
            read_checked(folder, file.file, file.sha256)
        except DamageError as e:
            found[file.file] = e
    return found


def shard_tables(part: PlanPart, table: pa.Table) -> dict[int, pa.Table]:
    """The rows of each shard of a part, by its number, of the rows of its whole file."""
    planned, found, start = part.shards, {}, 0
    for number, rows in enumerate(part.file.sizes, part.file.first_shard):
        if number in planned:
            found[number] = table.slice(start, rows)
        start += rows
    return found


def part_in(name: str, data: bytes, fingerprint: str) -> tuple[PlanPart, pa.Table] | None:
    """The part that a plan file says it is, and its rows (FILE_SCHEMA); None: it is none, was changed, or is
    of another fingerprint."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        about = json.loads((file.schema_arrow.metadata or {})[_KEY])
        if about["fingerprint"] != fingerprint:
            return None
        table = complete(file.read().replace_schema_metadata(None))
        if not table.schema.equals(FILE_SCHEMA):
            return None
        columns = {name: table[name].combine_chunks() for name in PLAN_SCHEMA.names[:-1]}
        if not with_digests(columns)["content"].equals(table["content"]):
            return None
        part = PlanPart(
            methods=tuple(about["methods"]),
            file=PlanFile(
                file=name,
                first_shard=about["first_shard"],
                shards=_runs([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]),
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
            ),
            replaced=pc.sum(table["replaces"]).as_py() or 0,
        )
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        return None
    return part, table


def part_number(name: str) -> int | None:
    """The number of the part whose plan file has this name, relative to the output folder."""
    match = _PART.fullmatch(name)
    return int(match[1]) if match else None


def _runs(sizes: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple((rows, len(list(equal))) for rows, equal in groupby(sizes))


def _files(run: RunRecord) -> Iterator[PlanFile | IdsFile]:
    yield from (part.file for part in run.plan)
    if run.selection.left_out is not None:
        yield run.selection.left_out


def read_checked(folder: OutputFolder, name: str, sha256: str) -> bytes:
    """A file of the plan. Raises DamageError: it is missing, cannot be read or was changed."""
    try:
        data = folder.read_bytes(name)
    except FileNotFoundError as e:
        raise damaged(folder, name, "is missing", "plan_missing") from e
    except OSError as e:
        raise DamageError.unreadable(folder.where(name), e) from e
    if hashlib.sha256(data).hexdigest() != sha256:
        raise damaged(folder, name, f"is not the file that {RUN_FILE} names (its sha256 differs)")
    return data


def damaged(folder: OutputFolder, name: str, what: str, kind: DamageKind = "plan_damaged") -> DamageError:
    """The error for a file of the plan that cannot be trusted."""
    advice = _ADVICE_MISSING if kind == "plan_missing" else _ADVICE_DAMAGED
    return DamageError(folder.where(name), what, advice, kind)
