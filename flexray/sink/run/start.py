"""Start a run in an output folder, or resume it if the folder already contains this run."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from flexray.errors import OutputError, first_few
from flexray.sink.folder import OutputFolder, is_systems
from flexray.sink.lock.hold import is_lock
from flexray.sink.plan.files import is_plan_file, plan_files
from flexray.sink.plan.growth import Growth, grow
from flexray.sink.plan.staging import Staged
from flexray.sink.records import (
    DATA_FOLDER,
    MANIFEST_FOLDER,
    OLD_NIGHT,
    PLAN_FOLDER,
    QUARANTINE_FOLDER,
    RUN_FILE,
    SCRATCH_FOLDER,
    CodeVersion,
    OldRunRecord,
    RunRecord,
    Selection,
    fingerprint,
    parse_run,
    utc_now,
)
from flexray.sink.records.damage import DamageError
from flexray.sink.records.rows import ROW_SCHEMA, columns_of
from flexray.sink.run.other_run import VALUES_KEY, other_code, refuse_other_run
from flexray.sink.run.rebuild import Rebuilt, keep_damaged_record, rebuild, with_whole_plan
from flexray.storage import redact

_OLD = (
    "holds a run of a flexray whose runs could not grow. `flexray adopt` brings its rows into another output "
    "folder, and computes nothing again; or discard it with --fresh (make: FRESH=1)."
)


def open_run(
    folder: OutputFolder,
    *,
    parts: dict[str, Any],
    config: dict[str, Any],
    code: CodeVersion | None = None,
    allow_code_change: bool = False,
) -> RunRecord | None:
    """The run that a start goes on with; None: the folder is empty. A lost or damaged record is made again
    from the plan files and the commits, a damaged one is copied into the quarantine first. A lost plan file
    is made again from the committed rows. Needs the folder's lock.

    Args:
        parts: what determines the rows. Two starts are the same run if its fingerprint is the same.
        config: of this start.
        code: the code that computes rows now.
        allow_code_change: go on with a run of another values version; its record stays as it is.

    Raises:
        OutputError: the folder contains another run (the message names each difference), the same run with
            another values version, one of flexray 0.1, or files of something else; or it cannot be used.
        DamageError: the run record belongs to another version of flexray; or both it and a manifest are lost
            or damaged.
    """
    try:
        found = folder.read_if_there(RUN_FILE)
        damage = None
        if found is not None:
            try:
                run = parse_run(found, folder.where(RUN_FILE))
            except DamageError as e:
                if e.kind != "run_record_damaged":
                    raise
                damage = e
            else:
                if isinstance(run, OldRunRecord):
                    raise OutputError(f"{folder}: {_OLD}")
                refuse_other_run(folder, run, parts, config)
                if run.parts.get(VALUES_KEY) != parts.get(VALUES_KEY) and not allow_code_change:
                    raise OutputError(f"{folder}: {other_code(run, code)}")
                return with_whole_plan(folder, run)
        rebuilt = rebuild(folder, parts, fingerprint(parts))
        if rebuilt is None:
            if found is None:
                _refuse_foreign_files(folder)
                return None
            rebuilt = Rebuilt((), 0)
        if found is not None and damage is not None:
            keep_damaged_record(folder, found, damage)
        return RunRecord(
            created=utc_now(),
            fingerprint=fingerprint(parts),
            parts=redact(parts),
            config=redact(config),
            provenance={},
            code=code,
            row_schema=columns_of(ROW_SCHEMA),
            plan=rebuilt.plan,
            next_shard=rebuilt.next_shard,
            selection=Selection(methods=(), sources=""),
            rebuilt=utc_now(),
        )
    except OSError as e:
        raise OutputError(f"{folder}: the run cannot be started: {e}") from e


def plan_run(
    folder: OutputFolder,
    run: RunRecord | None,
    data: Staged,
    *,
    parts: dict[str, Any],
    methods: Sequence[str],
    config: dict[str, Any],
    provenance: dict[str, Any],
    sources: str,
    committed: Collection[str] = (),
    code: CodeVersion | None = None,
    replace_changed: bool = False,
) -> RunRecord:
    """Plan what the recipe names and no commit has (see `grow`), and write the record.

    The plan's files are written before the record, so a crash in between leaves the run as it was.

    Args:
        run: the result of `open_run`.
        data: the data set.
        methods: the names of the recipe's methods, in order.
        sources: see Selection.
        committed: ids of the committed shards.

    Raises:
        DataError, OutputError, DamageError: as `grow`.
        ValueError: a method is given twice, or there is none.
    """
    if not methods or len(set(methods)) != len(methods):
        raise ValueError(f"at least one method is needed, and each only once: {list(methods)}")
    try:
        growth = grow(
            folder,
            run,
            data,
            methods=methods,
            sources=sources,
            committed=committed,
            shard_rows=config["data"]["shard_rows"],
            fingerprint=run.fingerprint if run else fingerprint(parts),
            first_shard=_next_shard(folder, run) if run else 0,
            replace_changed=replace_changed,
        )
        return write_run(
            folder,
            run,
            growth,
            parts=parts,
            config=config,
            provenance=provenance,
            code=code,
        )
    except OSError as e:
        raise OutputError(f"{folder}: the run cannot be planned: {e}") from e


def write_run(
    folder: OutputFolder,
    run: RunRecord | None,
    growth: Growth,
    *,
    parts: dict[str, Any],
    config: dict[str, Any],
    provenance: dict[str, Any],
    code: CodeVersion | None,
) -> RunRecord:
    """Write the record of a table that has grown, then remove plan files that it no longer names. Raises
    OSError."""
    changed = {
        "config": redact(config),
        "provenance": redact(provenance),
        "plan": growth.plan,
        "next_shard": growth.next_shard,
        "selection": growth.selection,
    }
    if run is None:
        new = RunRecord(
            created=utc_now(),
            fingerprint=fingerprint(parts),
            parts=redact(parts),
            code=code,
            row_schema=columns_of(ROW_SCHEMA),
            **changed,
        )
    else:
        new = run.model_copy(update=changed)
    new = new.sealed()
    if new != run:
        folder.write_bytes(RUN_FILE, new.to_bytes())
        named = set(plan_files(new))
        for name in folder.sizes(PLAN_FOLDER):
            if is_plan_file(name) and f"{PLAN_FOLDER}/{name}" not in named:
                folder.remove(f"{PLAN_FOLDER}/{name}")
    return new


def record_evaluation(folder: OutputFolder, run: RunRecord, section: dict[str, Any]) -> RunRecord:
    """Write into the record how a recipe scores answers, on which no row depends. Raises OutputError."""
    new = run.model_copy(update={"config": run.config | {"evaluation": redact(section)}}).sealed()
    try:
        folder.write_bytes(RUN_FILE, new.to_bytes())
    except OSError as e:
        raise OutputError(f"{folder.where(RUN_FILE)}: cannot be written: {e}") from e
    return new


def _refuse_foreign_files(folder: OutputFolder) -> None:
    own = (QUARANTINE_FOLDER, SCRATCH_FOLDER)
    names = [name for name in folder.list() if not (name in own or is_systems(name) or is_lock(name))]
    names = [name for name in names if not (re.fullmatch(OLD_NIGHT, name) and RUN_FILE in folder.list(name))]
    # a discarded run leaves its folders empty
    names = [
        name
        for name in names
        if name not in (MANIFEST_FOLDER, DATA_FOLDER, PLAN_FOLDER)
        or not all(is_systems(inner) or is_plan_file(inner) for inner in folder.list(name))
    ]
    if names:
        raise OutputError(
            f"{folder}: is not empty and holds no run ({first_few(names)}). Use another output folder."
        )


def _next_shard(folder: OutputFolder, run: RunRecord) -> int:
    """The first number of a shard that no manifest has either: a record that was restored from a copy does
    not know all shards, and the manifest of an unknown one would be taken for a new one's."""
    stems = (name.removesuffix(".json") for name in folder.list(MANIFEST_FOLDER))
    numbers = ((stem, stem.rpartition("-")[2]) for stem in stems)
    used = (int(n) for stem, n in numbers if n.isdecimal() and run.shard_id(int(n)) == stem)
    return max(run.next_shard, 1 + max(used, default=-1))
