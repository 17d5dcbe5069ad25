"""The checks of a run's data, and of what its output folder holds already."""

from __future__ import annotations

from collections.abc import Iterator

from flexray.console.checks import Finding, fail, passed, warn
from flexray.data import scan, with_few_shots
from flexray.preflight.plan.dry_folder import DryFolder
from flexray.preflight.plan.dry_run import DataFigures, DryRun
from flexray.runs.job import Job, plan
from flexray.sink.lock.file import Owner
from flexray.sink.lock.hold import EXPIRY_SECONDS, read_locks


def open_folder(run: DryRun) -> None:
    """The output folder, which is only read."""
    run.folder = DryFolder(run.config.output)


def read_first_locks(run: DryRun) -> Iterator[Finding]:
    """Read the lock files, and again at the end: one that has changed in between has a live owner."""
    run.locks = read_locks(run.dry_folder)
    yield passed(str(run.folder), "output")


def read_data(run: DryRun) -> None:
    """Read all rows of the data set."""
    run.found = scan(run.config.data)


def draw_few_shots(run: DryRun) -> None:
    """Draw the few-shots, if a run would."""
    run.drawn = with_few_shots(run.config, [run.found])


def plan_in_folder(run: DryRun) -> None:
    """Plan the run as its start does, in a folder that only pretends to write."""
    run.planned = plan(Job(config=run.config), run.dry_folder, found=run.found)


def count_rows(run: DryRun) -> Iterator[Finding]:
    """Rows and shards, and how many are left."""
    assert run.found is not None
    rows, shards = run.found.num_rows, -(-run.found.num_rows // run.config.data.shard_rows)
    output_rows, manifests = rows * len(run.methods), {}
    if run.planned is not None:
        record, manifests = run.planned.record, run.planned.committed
        output_rows, shards = record.planned_rows, record.planned_shards
    committed = sum(manifest.rows for manifest in manifests.values())
    run.data = data = DataFigures(
        name=f"{run.config.data.name}/{run.config.data.split}",
        files=len(run.found["source_file"].unique()),
        rows=rows,
        shards=shards,
        output_rows=output_rows,
        committed_rows=committed,
        committed_shards=len(manifests),
        left_rows=output_rows - committed,
        left_shards=shards - len(manifests),
    )
    yield passed(", ".join(method.name for method in run.methods), "methods")
    yield passed(
        f"{data.name}: {data.rows:,} rows in {data.shards:,} shards of {data.files:,} "
        f"file{'s' * (data.files != 1)}; {data.output_rows:,} output rows"
    )
    yield passed(
        f"{data.committed_rows:,} output rows in {data.committed_shards:,} shards; left: "
        f"{data.left_rows:,} in {data.left_shards:,}",
        "committed",
    )


def check_locks(run: DryRun) -> Iterator[Finding]:
    """Whether another run works in the folder. The lock of a dead process does not stop a run."""
    for name, data in read_locks(run.dry_folder).items():
        owner = Owner.parse(data)
        if owner is not None and owner.is_dead():
            continue
        who = owner or "a process that did not say its name"
        is_here = owner is not None and bool(owner.machine) and owner.machine == Owner.me().machine
        if is_here or run.locks.get(name, data) != data:
            yield fail(
                f"{run.dry_folder}: another run is at work there: {who}. Wait until it has ended, or stop it."
            )
        else:
            yield warn(
                f"{run.dry_folder}: another run may be at work there: {who}. A start watches it for up to "
                f"{EXPIRY_SECONDS:.0f} s, and takes over if there is no heartbeat."
            )
