"""What is left of a run whose record or plan is lost, and how both are made again.

A plan file says which part it is, and a commit which rows it has. So the record follows from the plan files
of a fingerprint and the commits of their shards; and a lost plan file from the committed rows, which have
the questions too. What was not committed is planned anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flexray.errors import OutputError
from flexray.sink.commit.manifests import find_manifests, is_manifest_file
from flexray.sink.folder import OutputFolder
from flexray.sink.plan.files import next_number, part_in, part_number, plan_files, read_part, shard_tables
from flexray.sink.plan.growth import committed_part
from flexray.sink.plan.restore import restore
from flexray.sink.read.committed import planned_manifests
from flexray.sink.records import (
    DATA_FOLDER,
    MANIFEST_FOLDER,
    OLD_PLAN_FILE,
    PLAN_FOLDER,
    RUN_FILE,
    Manifest,
    PlanPart,
    RunRecord,
    keys_digest,
    number_in,
    shard_of_data_file,
)
from flexray.sink.records.damage import DamageError, Finding
from flexray.sink.records.rows import expected_keys
from flexray.sink.repair.quarantine import Quarantine
from flexray.sink.run.other_run import ELSE


@dataclass(frozen=True, slots=True)
class Remains:
    """The files that a run has written, without its record."""

    manifests: int
    data: int
    plan: bool

    @classmethod
    def of(cls, folder: OutputFolder) -> Remains:
        """Count the files of a folder. Raises OSError if it cannot be listed."""
        return cls(
            manifests=sum(map(is_manifest_file, folder.sizes(MANIFEST_FOLDER))),
            data=sum(shard_of_data_file(name) is not None for name in folder.sizes(DATA_FOLDER)),
            plan=bool(folder.sizes(PLAN_FOLDER)) or OLD_PLAN_FILE in folder.list(),
        )

    @property
    def hold_rows(self) -> bool:
        """Whether the run has computed any rows."""
        return bool(self.manifests or self.data)

    def __str__(self) -> str:
        plan = " and the plan" if self.plan else ""
        return f"{self.manifests:,} manifest files, {self.data:,} data files{plan} are there"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The plan as it follows from plan files and commits."""

    plan: tuple[PlanPart, ...]
    next_shard: int


def rebuild(folder: OutputFolder, parts: dict[str, Any], fingerprint: str) -> Rebuilt | None:
    """The plan of a run whose record is lost; None: it has computed nothing.

    Args:
        parts, fingerprint: of the run that starts.

    Raises:
        DamageError: a manifest or a data file that is needed cannot be trusted.
        OutputError: there are rows of another run, or rows whose manifests are lost.
        OSError: the folder cannot be read.
    """
    remains = Remains.of(folder)
    if not remains.hold_rows:
        return None
    lost = f"{folder}: the run record {RUN_FILE} is lost or damaged, but {remains}"
    found = find_manifests(folder, None)
    for damage in found.damage.values():
        raise damage
    manifests = found.visible()
    strangers = [m for m in manifests.values() if m.fingerprint != fingerprint]
    if strangers:
        there = sorted({method for m in manifests.values() for method in m.accounting.rows_by_method})
        raise OutputError(
            f"{lost}. {len(strangers)} of the {len(manifests)} committed shards do not belong to the run "
            f"that starts now: shard {strangers[0].shard_id} belongs to another configuration, model or "
            f"values version (its fingerprint differs). The {sum(m.rows for m in manifests.values()):,} "
            f"committed rows are answers of {', '.join(there)}. Run the recipe that they belong to, with the "
            f"same model: it writes {RUN_FILE} again. {ELSE}"
        )
    files = _plan_files(folder)
    ours = {name: part_in(name, folder.read_bytes(name), fingerprint) for name in files}
    if not manifests and not any(ours.values()):
        raise OutputError(
            f"{lost}. Rows without manifests cannot be used: restore {MANIFEST_FOLDER} from a copy. {ELSE}"
        )
    numbered = {n: m for name, m in manifests.items() if (n := number_in(name, parts)) is not None}
    used, plan = {*numbered, *_written(folder, parts)}, []
    for part, table in filter(None, ours.values()):
        rows = shard_tables(part, table)
        used |= rows.keys()
        mine = {n for n in rows.keys() & numbered.keys() if _has(numbered[n], part, rows[n])}
        if kept := committed_part(part, mine):
            plan.append(kept)
            numbered = {n: m for n, m in numbered.items() if n not in mine}
    plan = restore(folder, numbered, max(files.values(), default=-1) + 1, plan)
    return Rebuilt(tuple(_without_stragglers(folder, plan)), max(used, default=-1) + 1)


def with_whole_plan(folder: OutputFolder, run: RunRecord) -> RunRecord:
    """The run's record, after lost plan files were written again from the committed rows. Only names and
    sizes are compared.

    Raises:
        DamageError: a committed row that is needed cannot be trusted.
        OSError: the folder cannot be read or written.
    """
    sizes = {f"{PLAN_FOLDER}/{name}": size for name, size in folder.sizes(PLAN_FOLDER).items()}
    lost = {name for name, size in plan_files(run).items() if sizes.get(name, -1) not in (size, None)}
    if not lost:
        return run
    shards, mine = run.shards(), {}
    for shard_id, manifest in planned_manifests(folder, run).items():
        part, number = shards[shard_id]
        if part.file.file in lost:
            mine[number] = manifest
    there = [part for part in run.plan if part.file.file not in lost]
    plan = restore(folder, mine, next_number(run), there)
    selection = run.selection.model_copy(update={"sources": "", "left_out": None})
    whole = run.model_copy(update={"plan": tuple(plan), "selection": selection}).sealed()
    folder.write_bytes(RUN_FILE, whole.to_bytes())
    return whole


def keep_damaged_record(folder: OutputFolder, data: bytes, damage: DamageError) -> None:
    """Copy a damaged run record into the quarantine. Raises OSError if this fails."""
    finding = Finding(
        kind=damage.kind, path=damage.path, what=damage.what, advice=damage.advice, name=RUN_FILE
    )
    Quarantine(folder, [finding]).keep(RUN_FILE, data)


def _plan_files(folder: OutputFolder) -> dict[str, int]:
    """The numbers of the files of parts, by name relative to the output folder."""
    names = (f"{PLAN_FOLDER}/{name}" for name in folder.sizes(PLAN_FOLDER))
    return {name: number for name in names if (number := part_number(name)) is not None}


def _written(folder: OutputFolder, parts: dict[str, Any]) -> Iterator[int]:
    """The numbers of shards that have data files, committed or not."""
    for name in folder.sizes(DATA_FOLDER):
        shard_id = shard_of_data_file(name)
        if shard_id and (number := number_in(shard_id, parts)) is not None:
            yield number


def _without_stragglers(folder: OutputFolder, plan: Sequence[PlanPart]) -> list[PlanPart]:
    """Without shards of which a row is in a later shard that does not replace it: they had been withdrawn
    when that one was planned, and were committed all the same."""
    kept: list[PlanPart] = []
    nothing = pa.array([], pa.string())
    taken: dict[str, pa.Array] = {}  # by method
    gone = nothing
    for part in reversed(plan):
        shards = shard_tables(part, read_part(folder, part, ["row_id", "replaces"]))
        rows = pa.concat_tables(shards.values()).combine_chunks()
        ids = rows["row_id"].combine_chunks()
        live = pc.invert(pc.is_in(ids, gone))
        twice = pa.array(np.zeros(len(ids), bool))
        for method in part.methods:
            twice = pc.or_(twice, pc.is_in(ids, taken.get(method, nothing)))
        numbers = np.repeat(list(shards), [table.num_rows for table in shards.values()])
        withdrawn = set(numbers[pc.and_(live, twice).to_numpy(zero_copy_only=False)].tolist())
        if (stays := committed_part(part, shards.keys() - withdrawn)) is None:
            continue
        kept.append(stays)
        here = pa.array(~np.isin(numbers, list(withdrawn)))
        for method in part.methods:
            taken[method] = pa.concat_arrays([taken.get(method, nothing), ids.filter(pc.and_(here, live))])
        gone = pa.concat_arrays([gone, ids.filter(pc.and_(here, rows["replaces"].combine_chunks()))])
    return kept[::-1]


def _has(manifest: Manifest, part: PlanPart, rows: pa.Table) -> bool:
    expected = expected_keys(part.methods, rows["row_id"].to_pylist())
    return manifest.keys_sha256 == keys_digest(expected)
