"""Check an output folder against its plan: each planned row exists once, and no file was changed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from flexray.errors import OutputError, first_few
from flexray.sink.commit.manifests import READERS, Found, find_manifests, is_manifest_file, shard_of_manifest
from flexray.sink.folder import OutputFolder, is_leftover
from flexray.sink.lock.hold import is_lock
from flexray.sink.plan.files import is_plan_file, plan_damage, plan_files
from flexray.sink.plan.shards import Plan, load_plan
from flexray.sink.read.committed import load_shard, only_planned
from flexray.sink.records import (
    DATA_FOLDER,
    MANIFEST_FOLDER,
    OWN_NAMES,
    PLAN_FOLDER,
    RUN_FILE,
    AnyRecord,
    Manifest,
    RunRecord,
    shard_of_data_file,
)
from flexray.sink.records.damage import DamageError, VerifyReport
from flexray.sink.records.differences import differences
from flexray.sink.records.rows import account, accounting_faults, keys_of, row_faults
from flexray.sink.run.existing import load_run
from flexray.sink.verify.tally import Key, Tally

_AT_ONCE = 256  # shards that are read before they are counted, to limit the memory


@dataclass(frozen=True)
class _Shard:
    """What is kept of a data file after it was read. A run's rows need not fit into memory."""

    keys: list[Key]
    faults: list[str]


def verify(folder: OutputFolder) -> VerifyReport:
    """Read everything that is committed, and count missing, doubled, damaged and unaccounted rows.

    Nothing is changed. A plan or run record that cannot be trusted is not used. Then only the number of
    missing rows is known, not their ids, and rows that were not planned cannot be found.

    Raises:
        OutputError: the folder contains no run, or cannot be listed.
    """
    return examine(folder)[0]


def examine(folder: OutputFolder) -> tuple[VerifyReport, Found]:
    """The report of `verify`, and the manifests that were found."""
    tally = Tally(folder)
    tally.run = run = _read_run(folder, tally)
    tally.plan = _read_plan(folder, run, tally)
    found = find_manifests(folder, run.fingerprint if run else None)
    for name, damage in found.damage.items():
        tally.damage(name, damage)
    visible = found.visible()
    manifests = list((only_planned(visible, run) if run else visible).values())
    for start in range(0, len(manifests), _AT_ONCE):
        _count_shards(folder, manifests[start : start + _AT_ONCE], tally)
    tally.finish()
    orphans, foreign = _unnamed(folder, found, run)
    _note_unnamed(orphans, foreign, tally)
    report = VerifyReport(
        planned_rows=run.planned_rows if run else 0,
        planned_shards=run.planned_shards if run else 0,
        committed_shards=len(tally.trusted),
        rows=tally.rows,
        missing=tally.missing,
        doubled=tally.doubled,
        damaged=tally.damaged,
        unaccounted=tally.unaccounted,
        findings=tuple(tally.findings),
        orphans=orphans,
        foreign=foreign,
    )
    return report, found


def _read_run(folder: OutputFolder, tally: Tally) -> AnyRecord | None:
    try:
        return load_run(folder)
    except DamageError as e:
        tally.damage(RUN_FILE, e)
        return None


def _read_plan(folder: OutputFolder, run: AnyRecord | None, tally: Tally) -> Plan | None:
    if run is None:  # without the run record, the plan cannot be checked
        return None
    damage = plan_damage(folder, run)
    for name, error in damage.items():
        tally.damage(name, error)
    return None if damage else load_plan(folder, run)


def _count_shards(folder: OutputFolder, manifests: Sequence[Manifest], tally: Tally) -> None:
    with ThreadPoolExecutor(READERS) as pool:
        shards = pool.map(lambda manifest: _read_shard(folder, manifest), manifests)
        for manifest, shard in zip(manifests, shards, strict=True):
            if isinstance(shard, DamageError):
                tally.damage(manifest.file, shard, [manifest.shard_id])
            else:
                tally.count(manifest, shard.keys, shard.faults)


def _read_shard(folder: OutputFolder, manifest: Manifest) -> _Shard | DamageError:
    try:
        table = load_shard(folder, manifest)
    except DamageError as e:
        return e
    faults = row_faults(table, manifest.shard_id)
    if not faults:  # `account` is defined only for rows without faults
        said, counted = manifest.accounting, account(table)
        faults = accounting_faults(said)
        faults += [
            f"the counts in its manifest are not those of its rows ({line})"
            for line in differences(said.model_dump(), counted.model_dump())
        ]
    return _Shard(keys=keys_of(table), faults=faults)


def _unnamed(
    folder: OutputFolder, found: Found, run: AnyRecord | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What failed attempts and stragglers have left: files that no manifest of a planned shard names, and
    manifests of shards that are not planned. And files and folders that flexray did not write."""
    visible = found.visible()
    manifests = only_planned(visible, run) if run else visible
    named = {manifest.file for manifest in manifests.values()}
    unplanned = visible.keys() - manifests.keys()
    orphans: list[str] = []
    foreign: list[str] = []
    try:
        for place in (DATA_FOLDER, MANIFEST_FOLDER):
            files = folder.sizes(place)
            for name in folder.list(place):
                full = f"{place}/{name}"
                is_file, is_data = name in files, place == DATA_FOLDER
                is_manifest = is_file and not is_data and is_manifest_file(name)
                if (is_file and full in named) or (is_manifest and shard_of_manifest(full) not in unplanned):
                    continue
                ours = is_manifest or is_leftover(name) or (is_data and shard_of_data_file(name))
                (orphans if is_file and ours else foreign).append(full)
        planned = set(plan_files(run)) if isinstance(run, RunRecord) else set()
        for name in folder.list(PLAN_FOLDER):
            full = f"{PLAN_FOLDER}/{name}"
            if full not in planned and run:
                (orphans if is_plan_file(name) or is_leftover(name) else foreign).append(full)
        for name in folder.list():
            if not (name in OWN_NAMES or is_lock(name) or is_leftover(name)):
                foreign.append(name)
    except OSError as e:
        raise OutputError(f"{folder}: cannot be listed: {e}") from e
    orphans += [record for record, manifest in found.compacted() if manifest.shard_id in unplanned]
    return tuple(orphans), tuple(sorted(foreign))


def _note_unnamed(orphans: Sequence[str], foreign: Sequence[str], tally: Tally) -> None:
    if orphans:
        what = f"{len(orphans)} file(s) of failed attempts and of withdrawn shards ({first_few(orphans)})"
        advice = "Readers ignore them; `flexray repair` moves those older than an hour aside."
        tally.note("orphans", "", what, advice)
    if foreign:
        what = f"{len(foreign)} file(s) or folder(s) that flexray did not write ({first_few(foreign)})"
        advice = "Readers ignore them; move them elsewhere if you need them."
        tally.note("foreign_files", "", what, advice)
