"""The rows that readers see: those that are committed, and that the last recipe names, or all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

    @property
    def is_whole(self) -> bool:
        """Whether no row of a shard is hidden, except by its method."""
        return not self.replaced and not len(self.left_out)


def view(folder: OutputFolder, run: AnyRecord, *, everything: bool = False) -> View:
    """What the last recipe names; `everything`: all methods and rows. Replaced rows are never seen.

    Raises:
        DamageError: a plan file that is needed cannot be trusted.
    """
    if isinstance(run, OldRunRecord):
        return View(run.methods, {}, pa.array([], pa.string()))
    replaced: dict[str, pa.Array] = {}
    gone = pa.array([], pa.string())
    for part in reversed(run.plan):
        if len(gone):
            replaced |= {run.shard_id(number): gone for number in part.shards}
        gone = pa.concat_arrays([gone, replaced_ids(folder, part)])
    if everything:
        return View(run.methods, replaced, pa.array([], pa.string()))
    return View(run.selection.methods, replaced, left_out_ids(folder, run.selection))


def read_committed(folder: OutputFolder, *, everything: bool = False) -> Iterator[pa.Table]:
    """The committed rows, one table (ROW_SCHEMA) per shard that has any, in order of shard ids. Each file is
    checked.

    Args:
        everything: also methods and rows that the last recipe does not name.

    Raises:
        OutputError: the folder holds no run.
        DamageError: a manifest, a data file or a plan file that is needed cannot be trusted.
    """
    run = load_run(folder)
    seen = view(folder, run, everything=everything)
    for shard_id, manifest in seen_shards(folder, run, seen).items():
        table = seen.of_shard(shard_id, load_shard(folder, manifest))
        if table.num_rows:
            yield table


def seen_shards(folder: OutputFolder, run: AnyRecord, seen: View) -> dict[str, Manifest]:
    """The committed shards that have rows of a seen method."""
    return {
        shard_id: manifest
        for shard_id, manifest in committed_shards(folder, run).items()
        if set(manifest.accounting.rows_by_method) & set(seen.methods)
    }
