"""Start a run in an output folder, or find that the folder is this run's already."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from flexray.sink.differences import differences
from flexray.sink.folder import OutputFolder, is_leftover
from flexray.sink.records import (
    DATA_FOLDER,
    MANIFEST_FOLDER,
    PLAN_FILE,
    RUN_FILE,
    SHARD_ID,
    DamageError,
    PlanRecord,
    RunRecord,
    canonical_json,
    fingerprint,
)
from flexray.sink.rows import columns_of, from_parquet, to_parquet
from flexray.sink.scrub import scrub
from flexray.types import ROW_SCHEMA, OutputError, ShardSpec

PLAN_SCHEMA = pa.schema(
    [pa.field("shard_id", pa.string(), nullable=False), pa.field("row_id", pa.string(), nullable=False)]
)
_ELSE = "Use another output folder, or start afresh with --fresh (make: FRESH=1)."


def start_run(
    folder: OutputFolder,
    *,
    parts: dict[str, Any],
    config: dict[str, Any],
    provenance: dict[str, Any],
    shards: Sequence[ShardSpec],
    known: bool = False,
) -> RunRecord:
    """Write the plan and then the run record, or return the record of the run to be resumed.

    `parts` is what determines the rows; its fingerprint decides whether a resume is the same run.
    `known`: the folder was that of a run, so files of others beside it are no sign of a wrong folder.
    The plan is there before `_run.json`, so a crash in between only means to start again.

    Raises:
        OutputError: the folder holds another run (each part that differs is named), the same
            configuration with other planned rows, files of something else, or cannot be used.
        DamageError: its run record or plan cannot be trusted.
        ValueError: the plan is not one-to-one (a shard or row id twice, a shard without its ids).
    """
    plan = plan_table(shards)
    try:
        found = folder.read_if_there(RUN_FILE)
        if found is None:
            if not known:
                _refuse_foreign_files(folder)
            return _first_start(folder, plan, len(shards), parts, config, provenance)
    except OSError as e:
        raise OutputError(f"{folder}: the run cannot be started: {e}") from e
    run = RunRecord.parse(found, folder.where(RUN_FILE))
    _refuse_other_run(folder, run, parts)
    if not load_plan(folder, run).equals(plan):
        raise OutputError(
            f"{folder}: holds a run of the same configuration whose {run.plan.rows} planned rows in "
            f"{run.plan.shards} shards are not the {plan.num_rows} in {len(shards)} of now. {_ELSE}"
        )
    return run


def discard_run(folder: OutputFolder) -> bool:
    """Delete what a run has written in this folder, and nothing else; its record goes last, so that a
    discard that is cut short leaves a run with fewer commits, never files without a run.

    Returns:
        Whether there was a run.

    Raises:
        OutputError: a file cannot be listed or deleted.
    """
    try:
        names = folder.list()
        if RUN_FILE not in names and MANIFEST_FOLDER not in names:
            return False
        for part, ending in ((MANIFEST_FOLDER, ".json"), (DATA_FOLDER, ".parquet")):
            for name in folder.list(part):
                if name.endswith(ending) or is_leftover(name):
                    folder.remove(f"{part}/{name}")
        for name in (PLAN_FILE, RUN_FILE):
            if name in names:
                folder.remove(name)
        return True
    except OSError as e:
        raise OutputError(f"{folder}: the earlier run cannot be discarded: {e}") from e


def load_run(folder: OutputFolder) -> RunRecord:
    """The run record of an output folder.

    Raises:
        OutputError: there is no run, or it cannot be read.
        DamageError: the record cannot be trusted.
    """
    try:
        found = folder.read_if_there(RUN_FILE)
    except OSError as e:
        raise OutputError(f"{folder.where(RUN_FILE)}: cannot be read: {e}") from e
    if found is None:
        raise OutputError(
            f"{folder}: holds no run (there is no {RUN_FILE}). Give the output folder of a run."
        )
    return RunRecord.parse(found, folder.where(RUN_FILE))


def load_plan(folder: OutputFolder, run: RunRecord) -> pa.Table:
    """The planned rows: a table of `shard_id` and `row_id`, in order.

    Raises:
        DamageError: the plan is missing, unreadable or not the one that the run record names.
    """
    path, advice = folder.where(PLAN_FILE), "Restore it from a copy, or use another output folder."
    try:
        data = folder.read_bytes(PLAN_FILE)
    except OSError as e:
        what = "is missing" if isinstance(e, FileNotFoundError) else f"cannot be read ({e})"
        raise DamageError(path, what, advice) from e
    if hashlib.sha256(data).hexdigest() != run.plan.sha256:
        raise DamageError(path, f"is not the plan that {RUN_FILE} names (its sha256 differs)", advice)
    try:
        table = from_parquet(data)
    except (pa.ArrowException, OSError) as e:
        raise DamageError(path, f"is no Parquet file ({e})", advice) from e
    if not table.schema.equals(PLAN_SCHEMA) or table.num_rows != run.plan.rows:
        raise DamageError(path, "has other columns or rows than a plan of this run", advice)
    return table


def plan_table(shards: Sequence[ShardSpec]) -> pa.Table:
    """One row (shard_id, row_id) for each planned row. Raises ValueError if it is not one-to-one."""
    shard_ids: list[str] = []
    row_ids: list[str] = []
    known_shards: set[str] = set()
    known_rows: set[str] = set()
    for shard in shards:
        if not re.fullmatch(SHARD_ID, shard.shard_id):
            raise ValueError(f"shard id {shard.shard_id!r} cannot be part of a file name")
        if shard.shard_id in known_shards:
            raise ValueError(f"shard {shard.shard_id} is planned twice")
        if len(shard.row_ids) != shard.num_rows:
            raise ValueError(
                f"shard {shard.shard_id} has {shard.num_rows} rows, but {len(shard.row_ids)} row ids"
            )
        known_shards.add(shard.shard_id)
        for row_id in shard.row_ids:
            if row_id in known_rows:
                raise ValueError(f"row {row_id} is planned twice, the second time in shard {shard.shard_id}")
            known_rows.add(row_id)
        shard_ids += [shard.shard_id] * shard.num_rows
        row_ids += shard.row_ids
    return pa.table({"shard_id": shard_ids, "row_id": row_ids}, schema=PLAN_SCHEMA)


def utc_now() -> str:
    """The time as the records write it: UTC, ISO 8601, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _first_start(
    folder: OutputFolder,
    plan: pa.Table,
    shards: int,
    parts: dict[str, Any],
    config: dict[str, Any],
    provenance: dict[str, Any],
) -> RunRecord:
    data = to_parquet(plan)
    run = RunRecord(
        created=utc_now(),
        fingerprint=fingerprint(parts),
        parts=scrub(parts),
        config=scrub(config),
        provenance=scrub(provenance),
        row_schema=columns_of(ROW_SCHEMA),
        plan=PlanRecord(
            shards=shards, rows=plan.num_rows, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
        ),
    ).sealed()
    folder.write_bytes(PLAN_FILE, data)
    folder.write_bytes(RUN_FILE, run.to_bytes())
    return run


def _refuse_other_run(folder: OutputFolder, run: RunRecord, parts: dict[str, Any]) -> None:
    lines = []
    if run.fingerprint != fingerprint(parts):
        # Both sides scrubbed: the record is, and a message must not show credentials either.
        lines = differences(run.parts, json.loads(canonical_json(scrub(parts))))
        lines = lines or ["a URL's credentials or query"]
    lines += differences(run.row_schema, columns_of(ROW_SCHEMA), "row schema")
    if lines:
        raise OutputError(
            f"{folder}: holds another run, started {run.created}. What differs (there -> here):\n  "
            + "\n  ".join(lines)
            + f"\n{_ELSE}"
        )


def _refuse_foreign_files(folder: OutputFolder) -> None:
    names = [name for name in folder.list() if name != PLAN_FILE and not is_leftover(name)]
    # a discarded run leaves its folders, without files in them
    names = [name for name in names if name not in (MANIFEST_FOLDER, DATA_FOLDER) or folder.list(name)]
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    if MANIFEST_FOLDER in names:
        raise OutputError(f"{folder}: holds results ({shown}), but its {RUN_FILE} is missing. {_ELSE}")
    if names:
        raise OutputError(f"{folder}: is not empty and holds no run ({shown}). Use another output folder.")
