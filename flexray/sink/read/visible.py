"""The rows that readers see: those that are committed, and that the last recipe names, or all."""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from flexray.sink.folder import OutputFolder
from flexray.sink.plan.files import left_out_ids
from flexray.sink.plan.shards import part_rows
from flexray.sink.read.committed import committed_shards, load_shard
from flexray.sink.records import AnyRecord, Manifest, OldRunRecord, RunRecord, ShardStats
from flexray.sink.records.damage import DamageError
from flexray.sink.records.rows import account
from flexray.sink.run.existing import load_run


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """What is planned of what is seen, committed or not."""

    rows: int
    """Output rows that are seen when they are committed."""
    shards: int
    """The shards that they are in."""


@dataclass(frozen=True, slots=True)
class View:
    """Which rows of each shard are seen."""

    methods: tuple[str, ...]
    planned: Planned
    unseen: tuple[Mapping[str, pa.Array], ...] = ()
    """Of each part of the plan, the row ids that are not seen, by shard id; only shards with any."""

    def of_shard(self, shard_id: str, table: pa.Table) -> pa.Table:
        """The seen rows (ROW_SCHEMA) of a shard, in order."""
        if set(table["method"].unique().to_pylist()) - set(self.methods):
            table = table.filter(pc.is_in(table["method"], pa.array(self.methods, pa.string())))
        gone = self._unseen_of(shard_id)
        return table if gone is None else table.filter(pc.invert(pc.is_in(table["row_id"], gone)))

    def rows_of(self, manifest: Manifest) -> dict[str, int]:
        """How many rows of a shard are seen, by method."""
        by_method, gone = manifest.accounting.rows_by_method, self._unseen_of(manifest.shard_id)
        fewer = 0 if gone is None else len(gone)
        return {m: rows - fewer for m, rows in by_method.items() if m in self.methods and rows > fewer}

    def has(self, manifest: Manifest) -> bool:
        """Whether any row of a shard is seen."""
        return bool(self.rows_of(manifest))

    def has_all(self, manifest: Manifest) -> bool:
        """Whether all rows of a shard are seen."""
        methods = set(manifest.accounting.rows_by_method)
        return methods <= set(self.methods) and self._unseen_of(manifest.shard_id) is None

    def of_shards(self, shard_ids: Container[str]) -> View:
        """The same of these shards alone, which is small."""
        unseen = ({name: ids for name, ids in part.items() if name in shard_ids} for part in self.unseen)
        return replace(self, unseen=tuple(filter(None, unseen)))

    def expression(self, manifests: Sequence[Manifest]) -> pc.Expression | None:
        """The seen rows of these shards, as a filter of Arrow data sets; None: all are seen."""
        only_some, gone = self._filters(manifests)
        terms = [pc.field("method").isin(pa.array(self.methods, pa.string()))] if only_some else []
        for shards, ids in gone:
            terms.append(~(pc.field("shard_id").isin(shards) & pc.field("row_id").isin(ids)))
        return functools.reduce(operator.and_, terms) if terms else None

    def condition(self, manifests: Sequence[Manifest]) -> str:
        """The same as a condition of SQL; "": all are seen."""
        only_some, gone = self._filters(manifests)
        terms = [f"method IN {_sql(self.methods)}"] if only_some else []
        for shards, ids in gone:
            terms.append(f"NOT (shard_id IN {_sql(shards)} AND row_id IN {_sql(ids.to_pylist())})")
        return " AND ".join(terms)

    def _filters(self, manifests: Sequence[Manifest]) -> tuple[bool, list[tuple[list[str], pa.Array]]]:
        """Whether these shards have other methods than those that are seen; and shards with the ids of rows
        that are not seen in them."""
        shards, gone = {manifest.shard_id for manifest in manifests}, []
        for of_part in self.unseen:
            among = [shard_id for shard_id in of_part if shard_id in shards]
            if among:  # a row is in one shard of a part
                gone.append((among, pa.concat_arrays([of_part[shard_id] for shard_id in among])))
        return any(set(m.accounting.rows_by_method) - set(self.methods) for m in manifests), gone

    def _unseen_of(self, shard_id: str) -> pa.Array | None:
        return next((of_part[shard_id] for of_part in self.unseen if shard_id in of_part), None)


def _sql(texts: Iterable[str]) -> str:
    """A list of string literals."""
    return f"({', '.join(map(literal, texts))})"


def literal(text: str) -> str:
    """A string literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def view(
    folder: OutputFolder, run: AnyRecord, *, everything: bool = False, methods: Sequence[str] = ()
) -> View:
    """What the last recipe names. Replaced rows are never seen.

    Args:
        everything: all methods and rows.
        methods: these, whether the recipe names them or not. (): those that it names.

    Raises:
        DamageError: a plan file that is needed cannot be trusted.
    """
    chosen = tuple(methods) or (run.methods if everything else run.selection.methods)
    left_out = pa.array([], pa.string())
    if isinstance(run, OldRunRecord):
        rows, known = run.plan.rows, [method for method in run.methods if method in chosen]
        whole = Planned(rows=rows * len(known), shards=run.planned_shards if known else 0)
        return View(chosen, whole)
    if not everything:
        left_out = left_out_ids(folder, run.selection)
    unseen: list[dict[str, pa.Array]] = []
    needed = len(left_out) or any(part.replaced for part in run.plan)
    for found in part_rows(folder, run.plan) if needed else ():
        ids = found.rows["row_id"].combine_chunks()
        gone = found.by_shard(pc.or_(found.replaced, pc.is_in(ids, left_out)))
        of_part = {
            run.shard_id(number): of_shard
            for number, row_ids in found.by_shard(ids).items()
            if len(of_shard := row_ids.filter(gone[number]))
        }
        if of_part:
            unseen.append(of_part)
    return View(chosen, _planned(run, chosen, unseen), tuple(unseen))


def _planned(run: RunRecord, methods: Sequence[str], unseen: Sequence[Mapping[str, pa.Array]]) -> Planned:
    gone = {shard_id: len(ids) for of_part in unseen for shard_id, ids in of_part.items()}
    rows = shards = 0
    for part in run.plan:
        known = sum(method in methods for method in part.methods)
        for number, size in part.shards.items():
            if seen := known * (size - gone.get(run.shard_id(number), 0)):
                rows, shards = rows + seen, shards + 1
    return Planned(rows=rows, shards=shards)


def look(
    folder: OutputFolder, *, everything: bool = False, methods: Sequence[str] = ()
) -> tuple[AnyRecord, View]:
    """The run's record, and what it says is seen (see `view`). A start that grows the table meanwhile may
    remove plan files; then the new record is read.

    Raises:
        OutputError: the folder holds no run.
        DamageError: the record, or a plan file that is needed, cannot be trusted.
    """
    run = load_run(folder)
    while True:
        try:
            return run, view(folder, run, everything=everything, methods=methods)
        except DamageError:
            before, run = run, load_run(folder)
            if run == before:
                raise


def seen_manifests(
    folder: OutputFolder, seen: View, manifests: Mapping[str, Manifest]
) -> dict[str, Manifest]:
    """The manifests of the shards that have seen rows, each with the rows, errors, fallbacks and backends of
    these rows alone.

    A data file is read only if some of its shard's rows are seen and some are not, and they differ in that. A
    damaged one's manifest keeps its numbers.
    """
    found = {}
    for shard_id, manifest in manifests.items():
        if not seen.has(manifest):
            continue
        if not seen.has_all(manifest):
            stats = _if_all_alike(manifest.accounting, seen.rows_of(manifest))
            if stats is None:
                with contextlib.suppress(DamageError):
                    stats = account(seen.of_shard(shard_id, load_shard(folder, manifest)))
            manifest = with_accounting(manifest, stats or manifest.accounting)
        found[shard_id] = manifest
    return found


def with_accounting(manifest: Manifest, stats: ShardStats) -> Manifest:
    """The manifest with the numbers of some of its rows in place of those of all."""
    return manifest.model_copy(update={"accounting": stats, "rows": stats.rows})


def _if_all_alike(stats: ShardStats, seen: dict[str, int]) -> ShardStats | None:
    """The numbers of the seen rows if all rows of a shard were answered by one backend; else None. Those that
    are of what was said, and so not known, are 0."""
    if stats.errors or stats.fallbacks or len(stats.backend_used) != 1:
        return None
    rows = sum(seen.values())
    (used,), (requested,) = stats.backend_used, stats.backend_requested
    return stats.model_copy(
        update={
            "rows": rows,
            "answered": rows,
            "rows_by_method": seen,
            "backend_requested": {requested: rows},
            "backend_used": {used: rows},
            "fallback_reason": {"": rows},
            "finish_reason": {},
            **dict.fromkeys(("scored", "correct", "prompt_tokens", "generated_tokens"), 0),
        }
    )


def read_committed(
    folder: OutputFolder, *, everything: bool = False, methods: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """The committed rows, one table (ROW_SCHEMA) per shard that has any, in order of shard ids. Each file is
    checked.

    Args:
        everything, methods: as `view`.

    Raises:
        OutputError: the folder holds no run.
        DamageError: a manifest, a data file or a plan file that is needed cannot be trusted.
    """
    run, seen = look(folder, everything=everything, methods=methods)
    for shard_id, manifest in committed_shards(folder, run).items():
        if not seen.has(manifest):
            continue
        table = seen.of_shard(shard_id, load_shard(folder, manifest))
        if table.num_rows:
            yield table
