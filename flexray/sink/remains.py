"""The remaining files of a run whose record is lost, and whether they belong to the run that starts now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from flexray.errors import OutputError
from flexray.sink.damage import DamageError, Finding
from flexray.sink.folder import OutputFolder
from flexray.sink.manifests import find_manifests, is_manifest_file
from flexray.sink.plan import Plan
from flexray.sink.quarantine import Quarantine
from flexray.sink.records import (
    DATA_FOLDER,
    MANIFEST_FOLDER,
    PLAN_FILE,
    RUN_FILE,
    Manifest,
    keys_digest,
    shard_of_data_file,
)
from flexray.sink.row_table import expected_keys, from_parquet

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
            plan=PLAN_FILE in folder.list(),
        )

    @property
    def hold_rows(self) -> bool:
        """Whether the run has computed any rows."""
        return bool(self.manifests or self.data)

    def __str__(self) -> str:
        plan = " and the plan" if self.plan else ""
        return f"{self.manifests:,} manifest files, {self.data:,} data files{plan} are there"


def are_of_this_run(folder: OutputFolder, plan: pa.Table, fingerprint: str, methods: Sequence[str]) -> bool:
    """Whether there are remains and all of them belong to the run that starts now. Then its run record can be
    written again.

    Args:
        plan, fingerprint, methods: those of the run that starts now.

    Raises:
        DamageError: a manifest cannot be trusted.
        OutputError: there are rows of another run, or rows whose manifests are lost.
        OSError: the folder cannot be read.
    """
    remains = Remains.of(folder)
    if not remains.hold_rows:
        return False
    lost = f"{folder}: the run record {RUN_FILE} is lost or damaged, but {remains}"
    if not remains.manifests:
        if _is_planned(folder, plan):  # an earlier start was killed before its first commit
            return True
        raise OutputError(
            f"{lost}. Rows without manifests cannot be used: restore {MANIFEST_FOLDER} from a copy. {ELSE}"
        )
    found = find_manifests(folder, None)
    for damage in found.damage.values():
        raise damage
    manifests = found.visible()
    planned = Plan(plan)
    faults = [fault for m in manifests.values() if (fault := _stranger(m, planned, fingerprint, methods))]
    if faults:
        there = sorted({method for m in manifests.values() for method in m.accounting.rows_by_method})
        raise OutputError(
            f"{lost}. {len(faults)} of the {len(manifests)} committed shards do not belong to the run that "
            f"starts now: {faults[0]}. The {sum(m.rows for m in manifests.values()):,} committed rows are "
            f"answers of {', '.join(there)}. Run the recipe that they belong to, with the same data and "
            f"model: it writes {RUN_FILE} again. {ELSE}"
        )
    return True


def keep_damaged_record(folder: OutputFolder, data: bytes, damage: DamageError) -> None:
    """Copy a damaged run record into the quarantine. Raises OSError if this fails."""
    finding = Finding(
        kind=damage.kind, path=damage.path, what=damage.what, advice=damage.advice, name=RUN_FILE
    )
    Quarantine(folder, [finding]).keep(RUN_FILE, data)


def _stranger(manifest: Manifest, plan: Plan, fingerprint: str, methods: Sequence[str]) -> str:
    """Why a shard does not belong to this run; "" if it does."""
    shard_id = manifest.shard_id
    if manifest.fingerprint != fingerprint:
        return (
            f"shard {shard_id} belongs to another configuration, model, data set or values version (its "
            "fingerprint differs)"
        )
    planned = expected_keys(methods, plan.row_ids(shard_id)) if shard_id in plan else None
    if planned is None or manifest.keys_sha256 != keys_digest(planned):
        return f"shard {shard_id} has other rows than are planned now (was data.shard_rows changed?)"
    return ""


def _is_planned(folder: OutputFolder, plan: pa.Table) -> bool:
    data = folder.read_if_there(PLAN_FILE)
    try:
        return data is not None and from_parquet(data).equals(plan)
    except (pa.ArrowException, OSError):
        return False
