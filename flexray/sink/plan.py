"""The plan: which rows will be computed by which methods, and in which shard.

plan/<n>.parquet            the questions of a part; each row group is a shard
plan/<n>-left-out.parquet   ids of rows that the last recipe does not name

A plan file says itself which part it is, so that a lost run record can be written again.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flexray.data.plan_rows import PLAN_SCHEMA
from flexray.data.question import ShardSpec
from flexray.sink.damage import DamageError, DamageKind
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
from flexray.sink.row_table import expected_keys

FILE_SCHEMA = PLAN_SCHEMA.append(pa.field("replaces", pa.bool_(), nullable=False))
"""Of a plan file: the questions, and whether each replaces an earlier one of the same id."""
IDS_SCHEMA = pa.schema([pa.field("row_id", pa.string(), nullable=False)])
_PART = re.compile(rf"{PLAN_FOLDER}/(\d+)\.parquet")
_OWN = re.compile(r"\d+(-left-out)?\.parquet")
_KEY = b"flexray"
"""The key of a plan file's metadata."""
_ADVICE = "Run again with the same configuration: it is written again, and no row is computed twice."


class Plan:
    """The row ids and the methods of each shard. Ids are kept as Arrow arrays: Python lists would need ten
    times the memory."""

    def __init__(self, shards: dict[str, tuple[tuple[str, ...], pa.ChunkedArray]]) -> None:
        """`shards`: methods and row ids, by shard id."""
        self._shards = shards

    def __iter__(self) -> Iterator[str]:
        return iter(self._shards)

    def __contains__(self, shard_id: str) -> bool:
        return shard_id in self._shards

    def row_ids(self, shard_id: str) -> list[str]:
        """The rows of a shard, in order. Raises KeyError if the shard is not planned."""
        found: list[str] = self._shards[shard_id][1].to_pylist()
        return found

    def keys(self, shard_id: str) -> list[tuple[str, str]]:
        """The (method, row_id) pairs of a shard, in order; [] if it is not planned."""
        return expected_keys(self._shards[shard_id][0], self.row_ids(shard_id)) if shard_id in self else []

    def shards_of(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[str]]:
        """The shards of each (method, row_id) pair, without the pairs that are not planned."""
        found: dict[tuple[str, str], list[str]] = {}
        wanted = pa.array(sorted({row_id for _, row_id in keys}), pa.string())
        pairs = set(keys)
        for shard_id, (methods, ids) in self._shards.items() if keys else ():
            for row_id in ids.filter(pc.is_in(ids, wanted)).to_pylist():
                for method in methods:
                    if (method, row_id) in pairs:
                        found.setdefault((method, row_id), []).append(shard_id)
        return found


def specs_of(folder: OutputFolder, run: RunRecord) -> dict[str, ShardSpec]:
    """All planned shards, by shard id, in order. No file is read."""
    return {
        shard_id: ShardSpec(
            shard_id=shard_id,
            file=folder.url_of(part.file.file),
            row_group=number - part.file.first_shard,
            num_rows=part.shards[number],
            methods=part.methods,
        )
        for part in run.plan
        for number, shard_id in ((number, run.shard_id(number)) for number in part.shards)
    }


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
    with pq.ParquetWriter(stream, schema, compression="zstd", write_page_checksum=True) as writer:
        start = 0
        for rows in shards:
            writer.write_table(table.slice(start, rows).replace_schema_metadata(schema.metadata))
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


def write_left_out(folder: OutputFolder, number: int, row_ids: pa.Array) -> IdsFile | None:
    """Write the rows that a recipe does not name; None: there are none. Raises OSError."""
    if not len(row_ids):
        return None
    stream = io.BytesIO()
    pq.write_table(pa.table({"row_id": row_ids}, schema=IDS_SCHEMA), stream, compression="zstd")
    name, data = f"{PLAN_FOLDER}/{number:04d}-left-out.parquet", stream.getvalue()
    folder.write_bytes(name, data)
    return IdsFile(file=name, rows=len(row_ids), bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def next_number(run: RunRecord | None) -> int:
    """The number of the next plan file."""
    left_out = run.selection.left_out if run else None
    names = [part.file.file for part in run.plan] if run else []
    names += [left_out.file] if left_out else []
    return max((int(re.findall(r"/(\d+)", name)[0]) + 1 for name in names), default=0)


def plan_files(run: RunRecord) -> dict[str, int]:
    """The size of each file that belongs to the plan, by its name relative to the output folder."""
    files = (*(part.file for part in run.plan), run.selection.left_out)
    return {file.file: file.bytes for file in files if file is not None}


def is_plan_file(name: str) -> bool:
    """Whether a file in the plan's folder is flexray's, by its name without the folder."""
    return bool(_OWN.fullmatch(name))


def read_part(folder: OutputFolder, part: PlanPart, columns: Sequence[str] | None = None) -> pa.Table:
    """The planned questions of a part (PLAN_SCHEMA), also of withdrawn shards. None: all columns.

    Raises:
        DamageError: the file is missing or was changed.
    """
    data = _read(folder, part.file.file, part.file.sha256)
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        return file.read(columns=columns).replace_schema_metadata(None)
    except (pa.ArrowException, OSError) as e:
        raise _damage(folder, part.file.file, f"is not a Parquet file ({e})") from e


def replaced_ids(folder: OutputFolder, part: PlanPart) -> pa.Array:
    """The row ids of earlier parts that a part replaces. Raises DamageError as `read_part`."""
    if not part.replaced:
        return pa.array([], pa.string())
    table = read_part(folder, part, ["row_id", "replaces"])
    return table.filter(table["replaces"])["row_id"].combine_chunks()


def left_out_ids(folder: OutputFolder, selection: Selection) -> pa.Array:
    """The rows that the last recipe does not name. Raises DamageError as `read_part`."""
    file = selection.left_out
    if file is None:
        return pa.array([], pa.string())
    try:
        table = pq.read_table(pa.BufferReader(_read(folder, file.file, file.sha256)))
    except (pa.ArrowException, OSError) as e:
        raise _damage(folder, file.file, f"is not a Parquet file ({e})") from e
    return table["row_id"].combine_chunks()


def load_plan(folder: OutputFolder, run: AnyRecord) -> Plan:
    """The planned rows of a run. Raises DamageError as `read_part`."""
    if isinstance(run, OldRunRecord):
        return Plan(_old_shards(folder, run))
    shards = {}
    for part in run.plan:
        for number, rows in shard_tables(part, read_part(folder, part, ["row_id"])).items():
            shards[run.shard_id(number)] = part.methods, rows["row_id"]
    return Plan(shards)


def shard_tables(part: PlanPart, table: pa.Table) -> dict[int, pa.Table]:
    """The rows of each shard of a part, by its number, of the rows of its whole file."""
    planned, found, start = part.shards, {}, 0
    for number, rows in enumerate(part.file.sizes, part.file.first_shard):
        if number in planned:
            found[number] = table.slice(start, rows)
        start += rows
    return found


def part_in(name: str, data: bytes, fingerprint: str) -> PlanPart | None:
    """The part that a plan file says it is; None: it is none, or of another fingerprint."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        about = json.loads((file.schema_arrow.metadata or {})[_KEY])
        if about["fingerprint"] != fingerprint:
            return None
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        replaced = pc.sum(file.read()["replaces"]).as_py() or 0  # reads, and so checks, all of it
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return None
    return PlanPart(
        methods=tuple(about["methods"]),
        file=PlanFile(
            file=name,
            first_shard=about["first_shard"],
            shards=_runs(groups),
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        ),
        replaced=replaced,
    )


def part_number(name: str) -> int | None:
    """The number of the part whose plan file has this name, relative to the output folder."""
    match = _PART.fullmatch(name)
    return int(match[1]) if match else None


def _runs(sizes: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple((rows, len(list(equal))) for rows, equal in groupby(sizes))


def _read(folder: OutputFolder, name: str, sha256: str) -> bytes:
    try:
        data = folder.read_bytes(name)
    except FileNotFoundError as e:
        raise _damage(folder, name, "is missing", "plan_missing") from e
    except OSError as e:
        raise DamageError.unreadable(folder.where(name), e) from e
    if hashlib.sha256(data).hexdigest() != sha256:
        raise _damage(folder, name, f"is not the file that {RUN_FILE} names (its sha256 differs)")
    return data


def _damage(folder: OutputFolder, name: str, what: str, kind: DamageKind = "plan_damaged") -> DamageError:
    return DamageError(folder.where(name), what, _ADVICE, kind)


def _old_shards(folder: OutputFolder, run: OldRunRecord) -> dict[str, tuple[tuple[str, ...], Any]]:
    try:
        table = pq.read_table(pa.BufferReader(_read(folder, run.plan.file, run.plan.sha256)))
        ids, row_ids = table["shard_id"].combine_chunks(), table["row_id"]
    except (pa.ArrowException, OSError, KeyError) as e:
        raise _damage(folder, run.plan.file, f"is not a plan ({e})") from e
    shards: dict[str, tuple[tuple[str, ...], Any]] = {}
    start = 0
    encoded = pc.run_end_encode(ids)
    for shard_id, end in zip(encoded.values.to_pylist(), encoded.run_ends.to_pylist(), strict=True):
        shards[shard_id] = run.methods, row_ids.slice(start, end - start)
        start = end
    return shards
