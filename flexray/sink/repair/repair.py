"""Move aside what `verify` finds damaged, so that the next run computes only these shards again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from flexray.config.fault_injection import reach
from flexray.errors import OutputError
from flexray.sink.commit.compaction import replace_manifest_files
from flexray.sink.commit.manifests import Found, shard_of_manifest
from flexray.sink.folder import OutputFolder
from flexray.sink.lock.hold import Lock, hold
from flexray.sink.read.committed import only_planned
from flexray.sink.records import DATA_FOLDER, MANIFEST_FOLDER, Manifest, shard_of_data_file
from flexray.sink.records.damage import DamageError, VerifyReport
from flexray.sink.repair.quarantine import Quarantine, age
from flexray.sink.run.existing import load_run
from flexray.sink.verify.verify import examine

ORPHAN_SECONDS = 3600.0  # a younger orphan may be the data file of a commit in progress

_UNJUDGED = ("unreadable", "other_version")
_SAID = ("plan_missing", "plan_damaged", "run_record_missing", "run_record_damaged", "foreign_files")
_MANIFEST_DAMAGE = ("manifest_damaged", "manifest_misplaced", "manifest_of_another_run")


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairResult:
    """What a repair has moved, or would move."""

    moved: tuple[str, ...]
    """The original names of the files and records."""
    quarantine: str
    """The folder that they are in, relative to the output folder; "" if nothing was moved."""
    rows_to_redo: int
    """Rows that the next run has to compute, including those that were missing before the repair."""

    def summary_line(self) -> str:
        """The counts on one line."""
        return f"quarantined={len(self.moved)} rows_to_redo={self.rows_to_redo}"


@dataclass
class _Work:
    """What has to be moved, in this order, and why."""

    files: dict[str, str] = field(default_factory=dict)  # whole files: name -> reason
    records: dict[str, tuple[Manifest, str]] = field(default_factory=dict)  # to be taken out of compact files
    compacts: list[str] = field(default_factory=list)  # to be replaced by one compact file of `staying`
    staying: list[Manifest] = field(default_factory=list)

    def reasons(self) -> dict[str, str]:
        """The reason for each file and record, by its name in the quarantine."""
        return self.files | {name: reason for name, (_, reason) in self.records.items()}


def repair(
    folder: OutputFolder,
    *,
    dry_run: bool = False,
    all_orphans: bool = False,
    log: Callable[[str], None] = print,
) -> RepairResult:
    """Verify the folder and move into a new folder below `_quarantine`: the manifest and the data file of
    each damaged shard, a damaged plan, a damaged run record, and orphans older than an hour. A file is
    deleted only after its copy was read back.

    The run's lock is held during the repair, so that nothing is committed. If a repair is interrupted, it can
    be repeated.

    Args:
        dry_run: only report what would be moved.
        all_orphans: move orphans of any age.
        log: called with a line for each moved file or record, and with what remains to be done.

    Raises:
        HeldError: a run is working in the folder.
        OutputError: the folder contains no run, cannot be read or written, or contains files of another
            version of flexray. Files that were not moved before the error are unchanged.
    """
    if dry_run:
        return _repair(folder, None, all_orphans, log)
    with contextlib.suppress(DamageError):  # if there is no run, raise before a lock file is written
        load_run(folder)
    with hold(folder, log=log) as lock:
        return _repair(folder, lock, all_orphans, log)


def _repair(
    folder: OutputFolder, lock: Lock | None, all_orphans: bool, log: Callable[[str], None]
) -> RepairResult:
    """`lock` None: only report what would be moved."""
    report, found = examine(folder)
    for finding in report.findings:
        if finding.kind in _UNJUDGED:
            raise OutputError(f"{finding} Until then, nothing can be repaired.")
    bad = _bad_shards(report)
    quarantine = Quarantine(folder, report.findings)
    try:
        work = _plan_work(folder, report, found, bad, all_orphans)
        for name, reason in work.reasons().items():
            log(f"{'moving' if lock else 'would move'} {name} to {quarantine.name}: {reason}")
        if lock:
            _keep(work, quarantine)
            lock.check()
            _remove(folder, work)
    except OSError as e:
        raise OutputError(f"{folder}: cannot be repaired: {e}") from e
    for finding in report.findings:
        if finding.kind in _SAID:
            log(str(finding))
    moved = tuple(work.reasons())
    return RepairResult(
        moved=moved,
        quarantine=quarantine.name if moved and lock else "",
        rows_to_redo=max(0, report.planned_rows - sum(m.rows for m in _good(folder, found, bad))),
    )


def _good(folder: OutputFolder, found: Found, bad: dict[str, str]) -> list[Manifest]:
    manifests = found.visible()
    with contextlib.suppress(DamageError):
        manifests = only_planned(manifests, load_run(folder))
    return [manifest for manifest in manifests.values() if manifest.shard_id not in bad]


def _bad_shards(report: VerifyReport) -> dict[str, str]:
    """The shards that must be computed again, and why."""
    bad: dict[str, str] = {}
    for finding in report.findings:
        shards = list(finding.shard_ids)
        if finding.kind in _MANIFEST_DAMAGE and (shard_id := shard_of_manifest(finding.name)):
            shards.append(shard_id)  # this file has taken the place of the shard's manifest
        for shard_id in shards:
            bad.setdefault(shard_id, finding.what)
    return bad


def _plan_work(
    folder: OutputFolder, report: VerifyReport, found: Found, bad: dict[str, str], all_orphans: bool
) -> _Work:
    work = _Work()
    orphans = set(report.orphans)
    for name, file in found.files.items():
        shard_id = shard_of_manifest(name)
        if shard_id is not None:
            if shard_id in bad:
                work.files[name] = bad[shard_id]
            continue
        records = [(f"{name}/{manifest.shard_id}.json", manifest) for manifest in file.manifests]
        out = {
            record: (manifest, bad.get(manifest.shard_id, "its shard was withdrawn"))
            for record, manifest in records
            if manifest.shard_id in bad or record in orphans
        }
        if file.damage is None:
            work.records |= out
        else:
            work.files[name] = file.damage.what
        if out or file.damage:
            work.compacts.append(name)
            work.staying += [manifest for record, manifest in records if record not in out]
    # except files that a good shard names: a forged manifest can name the data file of another shard
    there = {f"{DATA_FOLDER}/{name}" for name in folder.sizes(DATA_FOLDER)}
    there -= {m.file for m in found.visible().values() if m.shard_id not in bad}
    for manifest in (m for file in found.files.values() for m in file.manifests):
        if manifest.shard_id in bad and manifest.file in there:
            work.files[manifest.file] = bad[manifest.shard_id]
    for name in sorted(orphans - work.records.keys(), key=_manifests_first):
        shard_id = shard_of_data_file(name.removeprefix(f"{DATA_FOLDER}/"))
        if shard_id in bad:
            work.files.setdefault(name, bad[shard_id])
        elif all_orphans or age(folder, name) > ORPHAN_SECONDS:
            work.files.setdefault(name, "no manifest of a planned shard names it")
    for finding in report.findings:  # last, because they identify the run to which all other files belong
        if finding.kind in ("plan_damaged", "run_record_damaged"):
            work.files[finding.name] = finding.what
    return work


def _manifests_first(name: str) -> tuple[bool, str]:
    return not name.startswith(MANIFEST_FOLDER), name


def _keep(work: _Work, quarantine: Quarantine) -> None:
    for name in work.files:
        quarantine.keep_file(name)
    for name, (manifest, _) in work.records.items():
        quarantine.keep(name, manifest.to_bytes())


def _remove(folder: OutputFolder, work: _Work) -> None:
    # manifests first: a data file without a manifest is an orphan, a manifest without its data file is damage
    if work.compacts:
        replace_manifest_files(folder, work.compacts, work.staying)
    for name in work.files:
        if name not in work.compacts:
            reach("sink.repair.remove", name=name)
            with contextlib.suppress(FileNotFoundError):
                folder.remove(name)
