"""Move aside what verify found damaged, so that a resume computes just that again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from flexray.config.fault_injection import reach
from flexray.errors import OutputError
from flexray.sink.compaction import replace_manifest_files
from flexray.sink.damage import DamageError, VerifyReport
from flexray.sink.folder import OutputFolder
from flexray.sink.lock import Lock, hold
from flexray.sink.manifests import Found, shard_of_manifest
from flexray.sink.quarantine import Quarantine, age
from flexray.sink.records import DATA_FOLDER, Manifest, shard_of_data_file
from flexray.sink.start import load_run
from flexray.sink.verify import examine

ORPHAN_SECONDS = 3600.0  # a younger one may be the data file of a commit that is just being made

_UNJUDGED = ("unreadable", "other_version")
_SAID = ("plan_missing", "plan_damaged", "run_record_missing", "run_record_damaged", "foreign_files")
_MANIFEST_DAMAGE = ("manifest_damaged", "manifest_misplaced", "manifest_of_another_run")


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairResult:
    """What a repair moved, or would move."""

    moved: tuple[str, ...]
    """Files and records, by the names that they had."""
    quarantine: str
    """Where they are, relative to the output folder; "" if nothing was moved."""
    rows_to_redo: int
    """Rows that a resume has to compute, those that were missing before included."""

    def summary_line(self) -> str:
        """The counts on one line."""
        return f"quarantined={len(self.moved)} rows_to_redo={self.rows_to_redo}"


@dataclass
class _Work:
    """What is to be moved, in this order, and why."""

    files: dict[str, str] = field(default_factory=dict)  # moved whole: name -> reason
    records: dict[str, tuple[Manifest, str]] = field(default_factory=dict)  # taken out of compact files
    compacts: list[str] = field(default_factory=list)  # to be replaced by one with what stays of them
    staying: list[Manifest] = field(default_factory=list)

    def reasons(self) -> dict[str, str]:
        """What is moved, by the name that it gets, and why."""
        return self.files | {name: reason for name, (_, reason) in self.records.items()}


def repair(
    folder: OutputFolder,
    *,
    dry_run: bool = False,
    all_orphans: bool = False,
    log: Callable[[str], None] = print,
) -> RepairResult:
    """Verify, and move each shard that cannot stay, its manifest and its data file, into a folder of
    its own below `_quarantine`, and likewise a damaged plan, a damaged run record, and orphans that are
    older than an hour. Nothing is deleted before its copy was read back.

    It holds the run's lock meanwhile, so that nobody commits. A repair that was cut short is simply
    repeated.

    Args:
        dry_run: only report what would be moved.
        all_orphans: orphans of any age.
        log: is told a line for each thing moved, and what is left to do.

    Raises:
        HeldError: a run is at work in the folder.
        OutputError: the folder holds no run, cannot be read or written, or holds what this version of
            flexray cannot judge. What was not moved until then is where it was.
    """
    if dry_run:
        return _repair(folder, None, all_orphans, log)
    with contextlib.suppress(DamageError):  # a damaged record is a run's; a lock is not left anywhere else
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
            raise OutputError(f"{finding} Before that, nothing can be repaired.")
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
        rows_to_redo=max(
            0, report.planned_rows - sum(m.rows for m in found.visible().values() if m.shard_id not in bad)
        ),
    )


def _bad_shards(report: VerifyReport) -> dict[str, str]:
    """The shards that are to be computed again, and why."""
    bad: dict[str, str] = {}
    for finding in report.findings:
        shards = list(finding.shard_ids)
        if finding.kind in _MANIFEST_DAMAGE and (shard_id := shard_of_manifest(finding.name)):
            shards.append(shard_id)  # whatever it was committed with, it has this file in its place
        for shard_id in shards:
            bad.setdefault(shard_id, finding.what)
    return bad


def _plan_work(
    folder: OutputFolder, report: VerifyReport, found: Found, bad: dict[str, str], all_orphans: bool
) -> _Work:
    work = _Work()
    for name, file in found.files.items():
        shard_id = shard_of_manifest(name)
        if shard_id is not None:
            if shard_id in bad:
                work.files[name] = bad[shard_id]
            continue
        out = [manifest for manifest in file.manifests if manifest.shard_id in bad]
        if file.damage is None:
            for manifest in out:
                work.records[f"{name}/{manifest.shard_id}.json"] = manifest, bad[manifest.shard_id]
        else:
            work.files[name] = file.damage.what
        if out or file.damage:
            work.compacts.append(name)
            work.staying += [manifest for manifest in file.manifests if manifest.shard_id not in bad]
    # not what a good shard names: a forged manifest can name the data file of another shard
    there = {f"{DATA_FOLDER}/{name}" for name in folder.sizes(DATA_FOLDER)}
    there -= {m.file for m in found.visible().values() if m.shard_id not in bad}
    for manifest in (m for file in found.files.values() for m in file.manifests):
        if manifest.shard_id in bad and manifest.file in there:
            work.files[manifest.file] = bad[manifest.shard_id]
    for name in report.orphans:
        shard_id = shard_of_data_file(name.removeprefix(f"{DATA_FOLDER}/"))
        if shard_id in bad:
            work.files.setdefault(name, bad[shard_id])
        elif all_orphans or age(folder, name) > ORPHAN_SECONDS:
            work.files.setdefault(name, "no manifest names it")
    for finding in report.findings:  # last: they name the run that all the rest belongs to
        if finding.kind in ("plan_damaged", "run_record_damaged"):
            work.files[finding.name] = finding.what
    return work


def _keep(work: _Work, quarantine: Quarantine) -> None:
    for name in work.files:
        quarantine.keep_file(name)
    for name, (manifest, _) in work.records.items():
        quarantine.keep(name, manifest.to_bytes())


def _remove(folder: OutputFolder, work: _Work) -> None:
    # manifests first: a data file that nobody names is an orphan, a manifest without its file is damage
    if work.compacts:
        replace_manifest_files(folder, work.compacts, work.staying)
    for name in work.files:
        if name not in work.compacts:
            reach("sink.repair.remove", name=name)
            with contextlib.suppress(FileNotFoundError):
                folder.remove(name)
