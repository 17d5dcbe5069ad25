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
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flexray.data.plan_rows import PLAN_SCHEMA, with_digests
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
_ADVICE_DAMAGED = (
    "`flexray repair` moves it aside. Then run again: what is committed stays, and the rest is planned again."
)
_ADVICE_MISSING = "Run again with the same configuration: it is written again, and no row is computed twice."


@dataclass(frozen=True, slots=True)
class PartRows:
    """Rows of a part, without those of its withdrawn shards."""

    part: PlanPart
    rows: pa.Table
    """The columns that were asked for, and `row_id`, `replaces` and `place` (row in the part's file)."""
    replaced: pa.Array
    """Booleans: whether a later part replaces the row."""

    def live(self) -> pa.Table:
        """The rows that no later part replaces."""
        return self.rows.filter(pc.invert(self.replaced))


class Plan:
    """The row ids and the methods of each shard. Ids are kept as Arrow arrays: Python lists would need ten
    times the memory."""

    def __init__(
        self,
        shards: dict[str, tuple[tuple[str, ...], pa.ChunkedArray]],
        live: Sequence[tuple[tuple[str, ...], pa.ChunkedArray]],
    ) -> None:
        """`shards`: methods and row ids, by shard id. `live`: of each part, those that no later part
        replaces."""
        self._shards, self._live = shards, live

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

    def doubled(self) -> list[tuple[str, str]]:
        """The (method, row_id) pairs that are planned more than once, though no later part replaces them."""
        found = []
        for method in dict.fromkeys(method for methods, _ in self._live for method in methods):
            chunks = [c for methods, ids in self._live if method in methods for c in ids.chunks]
            counts = pa.chunked_array(chunks, pa.string()).value_counts()
            often = counts.filter(pc.greater(counts.field("counts"), 1))
            found += [(method, row_id) for row_id in often.field("values").to_pylist()]
        return found

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
    urls = {part.file.file: folder.url_of(part.file.file) for part in run.plan}
    sizes = {part.file.file: part.file.sizes for part in run.plan}
    return {
        shard_id: ShardSpec(
            shard_id=shard_id,
            file=urls[part.file.file],
            row_group=number - part.file.first_shard,
            num_rows=sizes[part.file.file][number - part.file.first_shard],
            methods=part.methods,
        )
        for shard_id, (part, number) in run.shards().items()
    }


def specs_to_do(folder: OutputFolder, run: RunRecord, committed: Collection[str]) -> list[ShardSpec]:
    """The planned shards that are not committed, in order. The plan files that they are in are checked.

    Raises:
        DamageError: one is missing or was changed.
    """
    shards = run.shards()
    todo = [spec for shard_id, spec in specs_of(folder, run).items() if shard_id not in committed]
    files = {file.file: file.sha256 for file in (shards[spec.shard_id][0].file for spec in todo)}
    for name, sha256 in files.items():
        _read(folder, name, sha256)
    return todo


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
    return {file.file: file.bytes for file in _files(run)}


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


def part_rows(
    folder: OutputFolder, plan: Sequence[PlanPart], columns: Sequence[str] = ()
) -> Iterator[PartRows]:
    """The planned rows of each part, from the last part to the first. Raises DamageError as `read_part`."""
    gone = pa.array([], pa.string())
    for part in reversed(plan):
        table = read_part(folder, part, list(dict.fromkeys(["row_id", "replaces", *columns])))
        table = table.append_column("place", pa.array(np.arange(table.num_rows)))
        rows = pa.concat_tables([table.slice(0, 0), *shard_tables(part, table).values()]).combine_chunks()
        ids = rows["row_id"].combine_chunks()
        yield PartRows(part, rows, pc.is_in(ids, gone))
        gone = pa.concat_arrays([gone, ids.filter(rows["replaces"].combine_chunks())])


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
        return _old_plan(folder, run)
    found = list(part_rows(folder, run.plan))[::-1]
    shards = {}
    for of_part in found:
        start = 0
        for number, rows in of_part.part.shards.items():
            ids = of_part.rows["row_id"].slice(start, rows)
            shards[run.shard_id(number)] = of_part.part.methods, ids
            start += rows
    return Plan(shards, [(of_part.part.methods, of_part.live()["row_id"]) for of_part in found])


def plan_damage(folder: OutputFolder, run: AnyRecord) -> dict[str, DamageError]:
    """The plan files that are missing or were changed, by name relative to the output folder."""
    files: list[Any] = [run.plan] if isinstance(run, OldRunRecord) else list(_files(run))
    found = {}
    for file in files:
        try:
            _read(folder, file.file, file.sha256)
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
        table = file.read().replace_schema_metadata(None)
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
    advice = _ADVICE_MISSING if kind == "plan_missing" else _ADVICE_DAMAGED
    return DamageError(folder.where(name), what, advice, kind)


def _old_plan(folder: OutputFolder, run: OldRunRecord) -> Plan:
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
    return Plan(shards, [(run.methods, row_ids)])
