"""Start a run in an output folder, or resume it if the folder already contains this run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from flexray.config.load import rename_keys
from flexray.data.question import ShardSpec
from flexray.errors import OutputError, first_few
from flexray.sink.damage import DamageError
from flexray.sink.differences import differences
from flexray.sink.folder import OutputFolder, is_leftover, is_systems
from flexray.sink.hub_commits import moved_commits
from flexray.sink.lock import is_lock
from flexray.sink.manifests import is_manifest_file
from flexray.sink.plan import load_plan, plan_digest, plan_table, write_plan
from flexray.sink.records import (
    CODE_OF_0_1,
    DATA_FOLDER,
    MANIFEST_FOLDER,
    PLAN_FILE,
    QUARANTINE_FOLDER,
    RUN_FILE,
    CodeVersion,
    RunRecord,
    fingerprint,
    shard_of_data_file,
)
from flexray.sink.remains import ELSE, Remains, are_of_this_run, keep_damaged_record
from flexray.sink.row_table import ROW_SCHEMA, columns_of
from flexray.sink.sealed import canonical_json
from flexray.storage import redact

VALUES_KEY = "values_version"
"""The key of `parts` that may differ with --allow-code-change. Records of flexray 0.1 do not have it."""


class NoRunError(OutputError):
    """The folder contains neither a run nor rows of one."""


def start_run(
    folder: OutputFolder,
    *,
    parts: dict[str, Any],
    methods: Sequence[str],
    config: dict[str, Any],
    provenance: dict[str, Any],
    shards: Sequence[ShardSpec],
    code: CodeVersion | None = None,
    known: bool = False,
    allow_code_change: bool = False,
) -> RunRecord:
    """Write the plan and then the run record, or return the record of the run that is resumed.

    A lost or damaged plan is written again if the planned rows are the same. A lost run record is written
    again if all commits belong to the run that starts now; a damaged one is copied into the quarantine first.
    The plan is written before `_run.json`, so a run can be started again after a crash in between.

    Args:
        parts: what determines the rows. Two starts are the same run if its fingerprint is the same.
        methods: the methods that answer each question, in the order of the output rows.
        code: the code that computes the rows.
        known: the folder contained a run that was just discarded, so other files in it are accepted.
        allow_code_change: resume a run of another values version; its record stays as it is.

    Raises:
        OutputError: the folder contains another run (the message names each difference), the same run with
            another values version or other planned rows, or files of something else; or it cannot be used.
        DamageError: the run record belongs to another version of flexray; or both it and a manifest are lost
            or damaged.
        ValueError: a shard, row or method is given twice, a shard lacks its row ids, or there is no method.
    """
    if not methods or len(set(methods)) != len(methods):
        raise ValueError(f"at least one method is needed, and each only once: {list(methods)}")
    plan = plan_table(shards)
    try:
        found = folder.read_if_there(RUN_FILE)
        damage = None
        if found is not None:
            try:
                run = RunRecord.parse(found, folder.where(RUN_FILE))
                _refuse_other_run(folder, run, parts, methods, config)
                if run.parts.get(VALUES_KEY) != parts.get(VALUES_KEY) and not allow_code_change:
                    raise OutputError(f"{folder}: {_other_code(run, code)}")
                return _with_whole_plan(folder, run, plan, len(shards))
            except DamageError as e:
                if e.kind != "run_record_damaged":
                    raise
                damage = e
        lost = not known and are_of_this_run(folder, plan, fingerprint(parts), methods)
        if found is not None and damage is not None:
            keep_damaged_record(folder, found, damage)
        elif not known and not lost:
            _refuse_foreign_files(folder)
        run = RunRecord(
            created=utc_now(),
            fingerprint=fingerprint(parts),
            parts=redact(parts),
            methods=tuple(methods),
            config=redact(config),
            provenance=redact(provenance),
            code=code,
            row_schema=columns_of(ROW_SCHEMA),
            plan=write_plan(folder, plan, len(shards)),
            rebuilt=utc_now() if lost or damage else "",
        ).sealed()
        folder.write_bytes(RUN_FILE, run.to_bytes())
        return run
    except OSError as e:
        raise OutputError(f"{folder}: the run cannot be started: {e}") from e


def discard_run(folder: OutputFolder) -> bool:
    """Delete the files that a run has written in this folder, and no others. The run record is deleted last,
    so an interrupted discard leaves a run with fewer commits, never files without a run. The quarantine is
    kept.

    Returns:
        Whether there was a run.

    Raises:
        OutputError: a file cannot be listed or deleted.
    """
    try:
        names = folder.list()
        if RUN_FILE not in names and not Remains.of(folder).hold_rows:
            return False
        for name in folder.sizes(MANIFEST_FOLDER):
            if is_manifest_file(name) or is_leftover(name):
                folder.remove(f"{MANIFEST_FOLDER}/{name}")
        for name in folder.sizes(DATA_FOLDER):
            if shard_of_data_file(name) or is_leftover(name):
                folder.remove(f"{DATA_FOLDER}/{name}")
        for name in (PLAN_FILE, RUN_FILE):
            if name in names:
                folder.remove(name)
        return True
    except OSError as e:
        raise OutputError(f"{folder}: the earlier run cannot be discarded: {e}") from e


def load_run(folder: OutputFolder) -> RunRecord:
    """The run record of an output folder.

    Raises:
        NoRunError: there is no run.
        OutputError: the record cannot be read.
        DamageError: the record cannot be trusted, or it is lost but other files of the run exist.
    """
    path = folder.where(RUN_FILE)
    try:
        found = folder.read_if_there(RUN_FILE)
        remains = Remains.of(folder) if found is None else None
    except OSError as e:
        raise OutputError(f"{path}: cannot be read: {e}") from e
    if found is not None:
        return RunRecord.parse(found, path)
    if remains and remains.hold_rows:
        raise DamageError(path, f"is missing, although {remains}", RunRecord.advice, "run_record_missing")
    raise NoRunError(f"{folder}: holds no run (there is no {RUN_FILE}). Give the output folder of a run.")


def other_parts(run: RunRecord, parts: dict[str, Any]) -> list[str]:
    """The differences between a run and a start with these `parts` (see `start_run`), one line each; [] if at
    most the values version differs."""
    if run.fingerprint == fingerprint(parts):
        return []
    # Both sides are redacted, because a message must not show credentials.
    there, here = rename_keys(run.parts)[0], json.loads(canonical_json(redact(parts)))
    version = differences(there.pop(VALUES_KEY, None), here.pop(VALUES_KEY, None), VALUES_KEY)
    lines = differences(there, here)
    if lines or version:
        return lines and lines + version
    return ["a URL's credentials or query"]


def utc_now() -> str:
    """The current time in UTC as the records contain it: ISO 8601, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _with_whole_plan(folder: OutputFolder, run: RunRecord, plan: pa.Table, shards: int) -> RunRecord:
    """The run's record, after a lost or damaged plan was written again."""
    another = (
        f"whose {run.plan.rows} planned rows in {run.plan.shards} shards are not the {plan.num_rows} rows in "
        f"{shards} shards that are planned now. {ELSE}"
    )
    try:
        if not load_plan(folder, run).equals(plan):
            raise OutputError(f"{folder}: holds a run of the same configuration {another}")
        return run
    except DamageError as e:
        if e.kind not in ("plan_missing", "plan_damaged"):
            raise
        if plan_digest(plan) != run.plan.pairs_sha256:
            raise OutputError(f"{e.path}: {e.what}; it belongs to a run {another}") from e
    # another version of pyarrow may write the same plan as other bytes; then the record needs their digest
    whole = run.model_copy(update={"plan": write_plan(folder, plan, shards)}).sealed()
    if whole != run:
        folder.write_bytes(RUN_FILE, whole.to_bytes())
    return whole


def _refuse_other_run(
    folder: OutputFolder,
    run: RunRecord,
    parts: dict[str, Any],
    methods: Sequence[str],
    config: dict[str, Any],
) -> None:
    lines = other_parts(run, parts)
    lines += moved_commits(run.config, config)
    lines += differences(list(run.methods), list(methods), "methods")
    lines += differences(run.row_schema, columns_of(ROW_SCHEMA), "row schema")
    if lines:
        raise OutputError(
            f"{folder}: holds another run, started {run.created}. Differences (there -> here):\n  "
            + "\n  ".join(lines)
            + f"\n{ELSE}"
        )


def _other_code(run: RunRecord, code: CodeVersion | None) -> str:
    then, now = (
        f"values version {known.values_version} (flexray {known.flexray}"
        f"{known.commit and f', commit {known.commit}'})"
        for known in (run.code or CODE_OF_0_1, code or CODE_OF_0_1)
    )
    return (
        f"holds a run written by flexray {(run.code or CODE_OF_0_1).flexray}, of {then}, but this code is "
        f"of {now}: it may give other answers to the same questions. Finish the run with the flexray that "
        "wrote it, or resume it with this code by --allow-code-change: each manifest names the code that "
        f"computed its rows. {ELSE}"
    )


def _refuse_foreign_files(folder: OutputFolder) -> None:
    own = (PLAN_FILE, QUARANTINE_FOLDER)
    names = [name for name in folder.list() if not (name in own or is_systems(name) or is_lock(name))]
    # a discarded run leaves its folders empty
    names = [
        name
        for name in names
        if name not in (MANIFEST_FOLDER, DATA_FOLDER)
        or not all(is_systems(inner) for inner in folder.list(name))
    ]
    if names:
        raise OutputError(
            f"{folder}: is not empty and holds no run ({first_few(names)}). Use another output folder."
        )
