"""The plan: which rows will be computed by which methods, and in which shard (files: `plan_files`)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flexray.data.question import ShardSpec
from flexray.sink.folder import OutputFolder
from flexray.sink.plan.files import damaged, read_checked, read_part, shard_tables
from flexray.sink.records import AnyRecord, OldRunRecord, PlanPart, RunRecord
from flexray.sink.records.rows import expected_keys

T = TypeVar("T", pa.Array, pa.ChunkedArray)


@dataclass(frozen=True, slots=True)
class PartRows:
    """Rows of a part, without those of its withdrawn shards."""

    part: PlanPart
    rows: pa.Table
    """The columns that were asked for, and `row_id`, `replaces` and `place` (row in the part's file)."""
    replaced: pa.Array
    """Booleans: whether a later part replaces the row."""

    def by_shard(self, values: T) -> dict[int, T]:
        """Those of each shard, by its number, of an array with a value for each row."""
        found, start = {}, 0
        for number, rows in self.part.shards.items():
            found[number] = values.slice(start, rows)
            start += rows
        return found

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


def checked_specs(folder: OutputFolder, run: RunRecord, shard_ids: Collection[str]) -> list[ShardSpec]:
    """Some of the planned shards, in order, to be answered: the plan files that they are in are checked.

    Raises:
        DamageError: one is missing or was changed.
    """
    shards = run.shards()
    specs = [spec for shard_id, spec in specs_of(folder, run).items() if shard_id in shard_ids]
    files = {file.file: file.sha256 for file in (shards[spec.shard_id][0].file for spec in specs)}
    for name, sha256 in files.items():
        read_checked(folder, name, sha256)
    return specs


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


def load_plan(folder: OutputFolder, run: AnyRecord) -> Plan:
    """The planned rows of a run. Raises DamageError as `read_part`."""
    if isinstance(run, OldRunRecord):
        return _old_plan(folder, run)
    found = list(part_rows(folder, run.plan))[::-1]
    shards = {}
    for of_part in found:
        for number, ids in of_part.by_shard(of_part.rows["row_id"]).items():
            shards[run.shard_id(number)] = of_part.part.methods, ids
    return Plan(shards, [(of_part.part.methods, of_part.live()["row_id"]) for of_part in found])


def _old_plan(folder: OutputFolder, run: OldRunRecord) -> Plan:
    try:
        table = pq.read_table(pa.BufferReader(read_checked(folder, run.plan.file, run.plan.sha256)))
        ids, row_ids = table["shard_id"].combine_chunks(), table["row_id"]
    except (pa.ArrowException, OSError, KeyError) as e:
        raise damaged(folder, run.plan.file, f"is not a plan ({e})") from e
    shards: dict[str, tuple[tuple[str, ...], Any]] = {}
    start = 0
    encoded = pc.run_end_encode(ids)
    for shard_id, end in zip(encoded.values.to_pylist(), encoded.run_ends.to_pylist(), strict=True):
        shards[shard_id] = run.methods, row_ids.slice(start, end - start)
        start = end
    return Plan(shards, [(run.methods, row_ids)])
