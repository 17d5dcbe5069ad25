"""Plan files that are lost, written again from the committed rows, which have the questions too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from flexray.data.plan_rows import PLAN_SCHEMA, with_digests
from flexray.errors import ConfigError
from flexray.methods import answers_of
from flexray.sink.folder import OutputFolder
from flexray.sink.plan.compare import asks_otherwise
from flexray.sink.plan.files import write_part
from flexray.sink.plan.shards import part_rows
from flexray.sink.read.committed import load_shard
from flexray.sink.records import Manifest, PlanPart


def restore(
    folder: OutputFolder, manifests: Mapping[int, Manifest], free: int, parts: Sequence[PlanPart]
) -> list[PlanPart]:
    """Write plan files for committed shards from their rows.

    Args:
        manifests: of the shards, by number.
        free: the number of the first new plan file.
        parts: those that are there.

    Returns:
        All parts, in order: shards are numbered as they are planned, so a later part has higher numbers.
    """
    plan = list(parts)
    found = {n: questions_of(load_shard(folder, manifests[n])) for n in sorted(manifests)}
    for number, shards in enumerate(_groups(found), free):
        table = pa.concat_tables(found[n][1] for n in shards).combine_chunks()
        before = [part for part in plan if part.file.first_shard < shards[0]]
        part = write_part(
            folder,
            number,
            table,
            shards=[found[n][1].num_rows for n in shards],
            first_shard=shards[0],
            methods=found[shards[0]][0],
            fingerprint=manifests[shards[0]].fingerprint,
            replaces=_replaces(folder, before, table),
        )
        plan = sorted([*plan, part], key=_first_shard)
    return sorted(plan, key=_first_shard)


def _first_shard(part: PlanPart) -> int:
    return part.file.first_shard


def _groups(found: Mapping[int, tuple[tuple[str, ...], pa.Table]]) -> Iterator[list[int]]:
    """Shards that can be one part: numbers in a row, the same methods, and no row twice."""
    group: list[int] = []
    ids: set[str] = set()
    for number, (methods, table) in found.items():
        mine = set(table["row_id"].to_pylist())
        if group and (group[-1] + 1 != number or found[group[0]][0] != methods or ids & mine):
            yield group
            group, ids = [], set()
        group.append(number)
        ids |= mine
    if group:
        yield group


def _replaces(folder: OutputFolder, before: Sequence[PlanPart], table: pa.Table) -> pa.Array:
    """For each row of a part, whether earlier parts ask something else under its id."""
    columns = ["row_id", "content", "error"]
    live = [found.live().select(columns) for found in part_rows(folder, before, columns)]
    known = pa.concat_tables([table.select(columns).slice(0, 0), *live]).combine_chunks()
    at = pc.index_in(table["row_id"].combine_chunks(), known["row_id"].combine_chunks())
    old = known.take(at)
    was_faulty, is_faulty = (pc.not_equal(rows["error"], "") for rows in (old, table))
    otherwise = asks_otherwise(old["content"], was_faulty, table["content"], is_faulty)
    return pc.fill_null(otherwise, False).combine_chunks()


def questions_of(rows: pa.Table) -> tuple[tuple[str, ...], pa.Table]:
    """The methods of a shard, in order, and its questions (PLAN_SCHEMA), from its output rows."""
    methods = tuple(rows["method"].unique().to_pylist())
    plain = [method for method in methods if not rates(method)]
    rows = rows.filter(pc.equal(rows["method"], (plain or methods)[0]))
    columns = {name: rows[name].combine_chunks() for name in PLAN_SCHEMA.names[:-1]}
    if not plain:  # the confidences are answers
        columns["confidences"] = pa.nulls(len(rows), PLAN_SCHEMA.field("confidences").type)
    return methods, with_digests(columns)


def rates(method: str) -> bool:
    """Whether the rows of a method have confidences of its own, not those of the question."""
    try:
        return answers_of(method) == "rated"
    except ConfigError:  # of a plug-in that is not loaded
        return False
