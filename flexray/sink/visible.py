"""The rows that readers see: those that are committed, and that the last recipe names, or all."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from flexray.sink.committed import committed_shards, load_shard
from flexray.sink.folder import OutputFolder
from flexray.sink.plan import left_out_ids, replaced_ids
from flexray.sink.records import AnyRecord, Manifest, OldRunRecord
from flexray.sink.start import load_run


@dataclass(frozen=True, slots=True)
class View:
    """Which rows of each shard are seen."""

    methods: tuple[str, ...]
    replaced: Mapping[str, pa.Array]
    """By shard id: row ids that a later part of the plan has replaced; only shards with any."""
    left_out: pa.Array
    """Rows that the last recipe does not name."""

    def of_shard(self, shard_id: str, table: pa.Table) -> pa.Table:
        """The seen rows (ROW_SCHEMA) of a shard, in order."""
        if set(table["method"].unique().to_pylist()) - set(self.methods):
            table = table.filter(pc.is_in(table["method"], pa.array(self.methods)))
        for gone in (self.replaced.get(shard_id), self.left_out):
            if gone is not None and len(gone):
                table = table.filter(pc.invert(pc.is_in(table["row_id"], gone)))
        return table

    def has(self, manifest: Manifest) -> bool:
        """Whether a shard has rows of a seen method."""
        return bool(set(manifest.accounting.rows_by_method) & set(self.methods))

    def expression(self, manifests: Sequence[Manifest]) -> pc.Expression | None:
        """The seen rows of these shards, as a filter of Arrow data sets; None: all are seen."""
        row_id, terms = pc.field("row_id"), []
        if any(set(m.accounting.rows_by_method) - set(self.methods) for m in manifests):
            terms.append(pc.field("method").isin(self.methods))
        if len(self.left_out):
            terms.append(~row_id.isin(self.left_out))
        by_ids: dict[int, tuple[pa.Array, list[str]]] = {}
        for shard_id, ids in self.replaced.items():
            by_ids.setdefault(id(ids), (ids, []))[1].append(shard_id)
        terms += [~(pc.field("shard_id").isin(shards) & row_id.isin(ids)) for ids, shards in by_ids.values()]
        return functools.reduce(operator.and_, terms) if terms else None


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
    if isinstance(run, OldRunRecord):
        return View(tuple(methods) or run.methods, {}, pa.array([], pa.string()))
    replaced: dict[str, pa.Array] = {}
    gone = pa.array([], pa.string())
    for part in reversed(run.plan):
        if len(gone):
            replaced |= {run.shard_id(number): gone for number in part.shards}
        gone = pa.concat_arrays([gone, replaced_ids(folder, part)])
    if everything:
        return View(tuple(methods) or run.methods, replaced, pa.array([], pa.string()))
    return View(tuple(methods) or run.selection.methods, replaced, left_out_ids(folder, run.selection))


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
    run = load_run(folder)
    seen = view(folder, run, everything=everything, methods=methods)
    for shard_id, manifest in committed_shards(folder, run).items():
        if not seen.has(manifest):
            continue
        table = seen.of_shard(shard_id, load_shard(folder, manifest))
        if table.num_rows:
            yield table
