"""Check an output folder against its plan: each planned row once, each byte as written."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from flexray.sink.commit import READERS, load_manifest, load_shard, manifest_names
from flexray.sink.differences import differences
from flexray.sink.folder import OutputFolder
from flexray.sink.records import (
    DATA_FOLDER,
    MANIFEST_FOLDER,
    DamageError,
    Manifest,
    RunRecord,
    manifest_name,
)
from flexray.sink.report import Finding, VerifyReport
from flexray.sink.rows import account, accounting_faults, row_faults
from flexray.sink.run import load_plan, load_run
from flexray.types import OutputError

_AGAIN = "Run again: a resume computes only what is missing."
_RECOMPUTE = "Delete the shard's manifest and run again: the shard is computed again."

_Plan = dict[str, list[str]]  # shard id -> its row ids


@dataclass
class _Tally:
    """Counts and findings so far."""

    doubled: int = 0
    missing: int = 0
    damaged: int = 0
    unaccounted: int = 0
    findings: list[Finding] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)  # committed row ids
    trusted: set[str] = field(default_factory=set)  # shards that are readable

    def note(self, path: str, what: str, advice: str) -> None:
        self.findings.append(Finding(path=path, what=what, advice=advice))

    def damage(self, error: DamageError) -> None:
        self.damaged += 1
        self.note(error.path, error.what, error.advice)


@dataclass(frozen=True)
class _Shard:
    """What is kept of a data file once it is read; a run's rows need not fit into memory."""

    row_ids: list[str]
    faults: list[str]


def verify(folder: OutputFolder) -> VerifyReport:
    """Read everything that is committed and count what is missing, doubled, damaged, unaccounted.

    Nothing is changed. An untrusted plan, or run record, is not used: then missing rows are counted
    by number, not by id, and rows that no plan knows cannot be told.

    Raises:
        OutputError: the folder holds no run, or cannot be listed.
    """
    tally = _Tally()
    run = _read_run(folder, tally)
    plan = _read_plan(folder, run, tally)
    manifests = _read_manifests(folder, run, tally)
    with ThreadPoolExecutor(READERS) as pool:
        shards = pool.map(lambda manifest: _read_shard(folder, manifest), manifests)
        for manifest, shard in zip(manifests, shards, strict=True):
            _count_shard(folder, manifest, shard, plan, tally)
    _count_doubled(folder, tally)
    _count_missing(folder, run, plan, tally)
    return VerifyReport(
        planned_rows=run.plan.rows if run else sum(map(len, (plan or {}).values())),
        planned_shards=run.plan.shards if run else len(plan or {}),
        committed_shards=len(tally.trusted),
        rows=tally.seen.total(),
        missing=tally.missing,
        doubled=tally.doubled,
        damaged=tally.damaged,
        unaccounted=tally.unaccounted,
        findings=tuple(tally.findings),
        orphans=_orphans(folder, {manifest.file for manifest in manifests}),
    )


def _read_run(folder: OutputFolder, tally: _Tally) -> RunRecord | None:
    try:
        return load_run(folder)
    except DamageError as e:
        tally.damage(e)
        return None


def _read_plan(folder: OutputFolder, run: RunRecord | None, tally: _Tally) -> _Plan | None:
    if run is None:  # it alone vouches for the plan
        return None
    try:
        table = load_plan(folder, run)
    except DamageError as e:
        tally.damage(e)
        return None
    plan: _Plan = {}
    for shard_id, row_id in zip(table["shard_id"].to_pylist(), table["row_id"].to_pylist(), strict=True):
        plan.setdefault(shard_id, []).append(row_id)
    return plan


def _read_manifests(folder: OutputFolder, run: RunRecord | None, tally: _Tally) -> list[Manifest]:
    def read(name: str) -> Manifest | DamageError:
        try:
            return load_manifest(folder, name, run.fingerprint if run else None)
        except DamageError as e:
            return e

    manifests = []
    with ThreadPoolExecutor(READERS) as pool:
        for found in pool.map(read, manifest_names(folder)):
            if isinstance(found, DamageError):
                tally.damage(found)
            else:
                manifests.append(found)
    return manifests


def _read_shard(folder: OutputFolder, manifest: Manifest) -> _Shard | DamageError:
    try:
        table = load_shard(folder, manifest)
    except DamageError as e:
        return e
    faults = row_faults(table, manifest.shard_id)
    if not faults:  # the rules make the rows countable
        said, counted = manifest.accounting, account(table)
        faults = accounting_faults(said)
        faults += [
            f"the accounting of its manifest is not that of its rows ({line})"
            for line in differences(said.model_dump(), counted.model_dump())
        ]
    return _Shard(row_ids=table["row_id"].to_pylist(), faults=faults)


def _count_shard(
    folder: OutputFolder, manifest: Manifest, shard: _Shard | DamageError, plan: _Plan | None, tally: _Tally
) -> None:
    if isinstance(shard, DamageError):
        tally.damage(shard)
        return
    path = folder.where(manifest.file)
    tally.trusted.add(manifest.shard_id)
    tally.seen.update(shard.row_ids)
    for fault in shard.faults:
        tally.unaccounted += 1
        tally.note(path, fault, _RECOMPUTE)
    if plan is not None:
        planned = set(plan.get(manifest.shard_id, ()))
        unknown = [row_id for row_id in shard.row_ids if row_id not in planned]
        if unknown:
            tally.unaccounted += len(unknown)
            what = f"holds {len(unknown)} row(s) that the plan does not know in this shard ({_some(unknown)})"
            tally.note(path, what, _RECOMPUTE)


def _count_doubled(folder: OutputFolder, tally: _Tally) -> None:
    doubled = [row_id for row_id, times in tally.seen.items() if times > 1]
    if doubled:
        tally.doubled = len(doubled)
        what = f"{len(doubled)} row id(s) are committed more than once ({_some(doubled)})"
        tally.note(
            folder.where(DATA_FOLDER), what, "Delete the manifests of the shards concerned and run again."
        )


def _count_missing(folder: OutputFolder, run: RunRecord | None, plan: _Plan | None, tally: _Tally) -> None:
    if plan is None:
        tally.missing = max(0, run.plan.rows - len(tally.seen)) if run else 0
        return
    for shard_id, row_ids in plan.items():
        missing = [row_id for row_id in row_ids if row_id not in tally.seen]
        if missing:
            tally.missing += len(missing)
            state = "lacks" if shard_id in tally.trusted else "is not committed, or damaged: it lacks"
            what = f"shard {shard_id} {state} {len(missing)} planned row(s) ({_some(missing)})"
            tally.note(folder.where(manifest_name(shard_id)), what, _AGAIN)


def _orphans(folder: OutputFolder, named: set[str]) -> tuple[str, ...]:
    try:
        data = [f"{DATA_FOLDER}/{name}" for name in folder.list(DATA_FOLDER)]
        manifests = [f"{MANIFEST_FOLDER}/{name}" for name in folder.list(MANIFEST_FOLDER)]
    except OSError as e:
        raise OutputError(f"{folder}: cannot be listed: {e}") from e
    return tuple(name for name in data + manifests if name not in named and not _is_manifest(name))


def _is_manifest(name: str) -> bool:
    return name.startswith(f"{MANIFEST_FOLDER}/") and name.endswith(".json")


def _some(row_ids: list[str]) -> str:
    return ", ".join(row_ids[:3]) + (", ..." if len(row_ids) > 3 else "")
