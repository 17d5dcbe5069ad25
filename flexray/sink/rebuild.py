"""What is left of a run whose record or plan is lost, and how both are made again.

A plan file says which part it is, and a commit which rows it has. So the record follows from the plan files
of a fingerprint and the commits of their shards; and a lost plan file from the committed rows, which have
the questions too. What was not committed is planned anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from flexray.data.plan_rows import PLAN_SCHEMA, with_digests
from flexray.errors import OutputError
from flexray.sink.committed import load_shard, planned_manifests
from flexray.sink.damage import DamageError, Finding
from flexray.sink.folder import OutputFolder
from flexray.sink.growth import committed_part
from flexray.sink.manifests import find_manifests, is_manifest_file
from flexray.sink.plan import (
    next_number,
    part_in,
    part_number,
    plan_files,
    read_part,
    shard_tables,
    write_part,
)
from flexray.sink.quarantine import Quarantine
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
    shard_of_data_file,
)
from flexray.sink.row_table import expected_keys

ELSE = "Use another output folder, or discard the earlier run with --fresh (make: FRESH=1)."


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


def rebuild(folder: OutputFolder, fingerprint: str) -> Rebuilt | None:
    """The plan of a run whose record is lost; None: it has computed nothing.

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
    planned = _planned_parts(folder, fingerprint)
    if not manifests and not planned:
        raise OutputError(
            f"{lost}. Rows without manifests cannot be used: restore {MANIFEST_FOLDER} from a copy. {ELSE}"
        )
    numbered = {_number(shard_id): manifest for shard_id, manifest in manifests.items()}
    parts, next_shard = [], max((n + 1 for n in numbered), default=0)
    for part in planned:
        shards = shard_tables(part, read_part(folder, part, ["row_id"]))
        whole = {n for n, rows in shards.items() if n in numbered and _has(numbered[n], part, rows)}
        next_shard = max([next_shard, *(n + 1 for n in shards)])
        if kept := committed_part(part, whole):
            parts.append(kept)
            numbered = {n: m for n, m in numbered.items() if n not in whole}
    taken = max(
        (number + 1 for part in planned if (number := part_number(part.file.file)) is not None), default=0
    )
    return Rebuilt((*parts, *_restore(folder, numbered, taken, parts)), next_shard)


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
    manifests = {run.shards()[name][1]: m for name, m in planned_manifests(folder, run).items()}
    parts: list[PlanPart] = []
    free = next_number(run)
    for part in run.plan:
        if part.file.file not in lost:
            parts.append(part)
            continue
        mine = {n: m for n, m in manifests.items() if n in part.shards}
        new = _restore(folder, mine, free, parts)
        parts += new
        free += len(new)
    selection = run.selection.model_copy(update={"sources": "", "left_out": None})
    whole = run.model_copy(update={"plan": tuple(parts), "selection": selection}).sealed()
    folder.write_bytes(RUN_FILE, whole.to_bytes())
    return whole


def keep_damaged_record(folder: OutputFolder, data: bytes, damage: DamageError) -> None:
    """Copy a damaged run record into the quarantine. Raises OSError if this fails."""
    finding = Finding(
        kind=damage.kind, path=damage.path, what=damage.what, advice=damage.advice, name=RUN_FILE
    )
    Quarantine(folder, [finding]).keep(RUN_FILE, data)


def _planned_parts(folder: OutputFolder, fingerprint: str) -> list[PlanPart]:
    found: dict[int, PlanPart] = {}
    for name in folder.sizes(PLAN_FOLDER):
        full = f"{PLAN_FOLDER}/{name}"
        number = part_number(full)
        if number is not None and (part := part_in(full, folder.read_bytes(full), fingerprint)):
            found[number] = part
    return [found[number] for number in sorted(found)]


def _restore(
    folder: OutputFolder, manifests: Mapping[int, Manifest], number: int, earlier: Sequence[PlanPart]
) -> list[PlanPart]:
    """Write plan files for committed shards from their rows: a part for shards of the same methods whose
    numbers follow each other.

    Args:
        manifests: of the shards, by number.
        number: of the first new plan file.
        earlier: parts whose rows they may replace.
    """
    before: dict[str, bytes] = {}
    for part in earlier if manifests else ():
        table = read_part(folder, part, ["row_id", "content"])
        before |= zip(table["row_id"].to_pylist(), table["content"].to_pylist(), strict=True)
    tables = {n: _questions(load_shard(folder, manifests[n])) for n in sorted(manifests)}
    methods = {n: tuple(manifests[n].accounting.rows_by_method) for n in tables}
    parts: list[PlanPart] = []
    for _, run in groupby(enumerate(tables), lambda pair: (pair[1] - pair[0], methods[pair[1]])):
        shards = [n for _, n in run]
        table = pa.concat_tables(tables[n] for n in shards)
        pairs = zip(table["row_id"].to_pylist(), table["content"].to_pylist(), strict=True)
        parts.append(
            write_part(
                folder,
                number + len(parts),
                table,
                shards=[tables[n].num_rows for n in shards],
                first_shard=shards[0],
                methods=_methods_of(folder, manifests[shards[0]]),
                fingerprint=manifests[shards[0]].fingerprint,
                replaces=pa.array([before.get(row_id, content) != content for row_id, content in pairs]),
            )
        )
    return parts


def _questions(rows: pa.Table) -> pa.Table:
    """PLAN_SCHEMA: the questions of a shard, from its output rows by the first of its methods."""
    rows = rows.filter(pc.equal(rows["method"], rows["method"][0]))
    return with_digests({name: rows[name].combine_chunks() for name in PLAN_SCHEMA.names[:-1]})


def _methods_of(folder: OutputFolder, manifest: Manifest) -> list[str]:
    """In order, which accounting does not have."""
    return list(dict.fromkeys(load_shard(folder, manifest)["method"].to_pylist()))


def _has(manifest: Manifest, part: PlanPart, rows: pa.Table) -> bool:
    expected = expected_keys(part.methods, rows["row_id"].to_pylist())
    return manifest.keys_sha256 == keys_digest(expected)


def _number(shard_id: str) -> int:
    return int(shard_id.rpartition("-")[2])
