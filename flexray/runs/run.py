"""A run: check everything, plan, answer what is not committed yet, commit, sum up.

This module connects the stages; each stage knows only those before it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

from flexray.config import LimitsConfig, RunConfig
from flexray.console.log import Log, RunLabel
from flexray.console.progress import CommittedShard, Lines, LogLine, Progress
from flexray.console.signals import Stopped, ending_by
from flexray.data.question import ShardSpec
from flexray.errors import OutputError, first_few
from flexray.methods import make_methods
from flexray.pipeline.ray_connection import connect_ray
from flexray.pipeline.ray_data import answer_shards
from flexray.pipeline.ray_map import RayMap
from flexray.pipeline.shards import AnsweredShard
from flexray.pipeline.telemetry import report_remaining
from flexray.report.notes import look_at
from flexray.report.run_folder import RunFolder
from flexray.runs.commit import Commit
from flexray.runs.job import check_job, plan, refuse_other_settings
from flexray.runs.node_check import check_nodes
from flexray.sink import (
    Lock,
    Manifest,
    OutputFolder,
    RunRecord,
    checked_specs,
    compact,
    hold,
    whole_shards,
)
from flexray.sink.read.visible import seen_manifests, view

EARLY_ROWS = 200
"""Rows after which a run is judged (see LimitsConfig.stop_early)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """What is committed of what the recipe names, and what this start added."""

    manifests: dict[str, Manifest]
    """By shard id, with the rows, errors, fallbacks and backends of the rows that the recipe names; see
    `seen_manifests`."""
    rows_before: int  # committed before this start
    rows_now: int  # committed by this start
    seconds: float  # of this start, with start-up and compilation


def over_limits(manifests: Iterable[Manifest], limits: LimitsConfig) -> str:
    """Which limits the run as a whole exceeds, and by how much; "" if none."""
    accounts = [manifest.accounting for manifest in manifests]
    rows = sum(a.rows for a in accounts)
    counts = (
        ("are errors", "max_error_share", sum(a.errors for a in accounts), limits.max_error_share),
        ("fell back", "max_fallback_share", sum(a.fallbacks for a in accounts), limits.max_fallback_share),
    )
    return "; ".join(
        f"{count} of {rows} rows {what}, more than limits.{name} ({share}) allows"
        for what, name, count, share in counts
        if count > share * rows
    )


def run(
    config: RunConfig,
    *,
    fresh: bool = False,
    allow_code_change: bool = False,
    replace_changed: bool = False,
    log: LogLine = print,
    progress: Progress | None = None,
) -> RunResult:
    """Answer what a recipe names and its output folder does not have yet.

    Args:
        fresh: discard what the output folder holds of an earlier run.
        allow_code_change: go on with a run of another values version.
        replace_changed: compute committed rows again whose question has changed since; else they are refused.
        log: called with each line about the progress.
        progress: receives the progress in place of `log`. None: `Lines(log)`.

    Raises:
        UserError: something the user can put right, found before any model is loaded if possible.
    """
    start = time.perf_counter()
    progress = progress or Lines(log)
    folder = OutputFolder(config.output)
    if not fresh:
        refuse_other_settings(config, folder)
    job = check_job(config, folder)
    for line in job.notes:
        progress.note(line)
    with hold(folder, log=progress.note) as lock:
        planned = plan(
            job,
            folder,
            fresh=fresh,
            allow_code_change=allow_code_change,
            replace_changed=replace_changed,
            distribute=RayMap(
                config=job.config,
                stopped=lambda _: lock.release(),
                check=lock.check,
                note=progress.note,
            ),
            note=progress.note,
        )
        config, record, before = planned.config, planned.record, planned.committed
        compact(folder, record.fingerprint)  # no worker commits here, nor below
        rows_before = sum(m.rows for m in before.values())
        todo = checked_specs(folder, record, record.shards().keys() - before.keys())
        progress.note(
            f"{config.data.name}/{config.data.split}: {record.planned_rows} rows in {record.planned_shards} "
            f"shards, {rows_before} rows in {len(before)} shards committed already -> {folder}"
        )
        if todo:
            commit = Commit(folder.url, record.fingerprint, config.plugins)
            rows = sum(spec.num_rows * len(spec.methods) for spec in todo)

            def so_far(done: int) -> str:
                return f"{rows_before + done} of {record.planned_rows} rows are committed"

            answer(
                todo,
                config,
                commit,
                so_far,
                rows=rows,
                record=record,
                lock=lock,
                progress=progress,
                stop_early=config.limits.stop_early,
            )
            lock.check()
            try:
                compact(folder, record.fingerprint)
            except Stopped as e:
                e.add_note(so_far(rows))
                raise
        else:
            progress.note("everything is committed: nothing to do")
        after = whole_shards(folder, record)
        seen = seen_manifests(folder, view(folder, record), after)
    if lost := [shard_id for shard_id in record.shards() if shard_id not in after]:
        raise RuntimeError(
            f"{folder}: {len(lost)} shards are not committed ({first_few(lost)}); run again to redo them"
        )
    if todo and (line := _roundings(after.values())):
        progress.note(line)
    rows_now = sum(m.rows for m in after.values()) - rows_before
    return RunResult(
        manifests=seen, rows_before=rows_before, rows_now=rows_now, seconds=time.perf_counter() - start
    )


def judge(output: str, first: Sequence[CommittedShard]) -> None:
    """Raises an OutputError with the reasons if most rows of a start's first shards are errors or empty."""
    rows = sum(shard.rows for shard in first)
    errors = sum(shard.errors for shard in first)
    empty = sum(shard.empty for shard in first)
    if 2 * (errors + empty) <= rows:
        return
    run = RunFolder.open(output)
    judged = {shard.shard_id for shard in first}  # more may be committed by now
    run.manifests = {shard_id: m for shard_id, m in run.manifests.items() if shard_id in judged}
    found = look_at(run, examples=0)
    reasons = [f"{n:,} rows: {error}" for error, n in found.errors[:3]] if errors else []
    reasons += found.warnings if empty else []
    raise OutputError(
        f"{OutputFolder(output)}: of the first {rows:,} rows {errors:,} are errors and {empty:,} have an "
        "empty answer, so the run has ended; they are committed, and stay. limits.stop_early=false goes on "
        "nevertheless.\n  " + "\n  ".join(reasons)
    )


def by_methods(config: RunConfig, names: Sequence[str]) -> RunConfig:
    """The configuration with only these of its methods, in this order."""
    known = {
        method.name: settings
        for method, settings in zip(make_methods(config.methods), config.methods, strict=True)
    }
    return config.model_copy(update={"methods": tuple(known[name] for name in names)})


def _roundings(manifests: Iterable[Manifest]) -> str:
    """Says if a run's shards were rounded in several ways: the GPU or a library has changed since."""
    found = [m.engine_stats.get("rounding") for m in manifests]
    ways = {json.dumps(way, sort_keys=True) for way in found if way}
    if len(ways) < 2:
        return ""
    return (
        f"note: the shards were computed in {len(ways)} ways: {first_few(sorted(ways))}. Near-ties may be "
        "decided otherwise in one than in another; each shard's manifest has its own."
    )


def answer(
    shards: Sequence[ShardSpec],
    config: RunConfig,
    commit: Callable[[AnsweredShard], dict[str, Any]],
    so_far: Callable[[int], str],
    *,
    rows: int,
    record: RunRecord,
    lock: Lock,
    progress: Progress,
    only: Callable[[ShardSpec], frozenset[str]] | None = None,
    stop_early: bool = False,
) -> int:
    """Answer shards and commit them while this process holds the lock; reports progress, events and metrics.
    Shards that other methods answer have a pipeline of their own, one after the other.

    Args:
        commit: returns the fields of a CommittedShard (see `answer_shards`).
        so_far: makes the message at a signal from the number of rows that are done.
        rows: output rows of the shards, by all methods.
        only: the row ids of a shard that are to be answered. None: all.
        stop_early: see LimitsConfig.

    Returns:
        How many of the rows are errors.

    Raises:
        UserError: a node of the cluster lacks what the run needs; or raised in a worker: a failing storage is
            one.
    """
    label = RunLabel.of_start(record.fingerprint, config.data.name)
    events = Log(run=label.run_id, dataset=label.dataset)
    done = errors = 0
    first: list[CommittedShard] = []  # those of the first EARLY_ROWS rows

    def failed(e: BaseException) -> None:
        events.error("run.failed", e, rows_done=done, rows_planned=rows)
        if isinstance(e, Stopped):
            e.add_note(f"{so_far(done)}; the same command goes on with the others")

    def end(stopped: Stopped) -> None:
        """Called in place of raising an exception: Ray's code cannot take one at any point, and when Ray is
        sent the signal too, it ends this process along with itself."""
        failed(stopped)
        lock.release()

    with ending_by(end):
        connect_ray(config.ray, progress.note)
        check_nodes(config)
    events.info("run.started", rows=rows, shards=len(shards), output=config.output)
    progress.planned(rows=rows, shards=len(shards))
    report_remaining(label, rows)
    stream = chain.from_iterable(
        answer_shards(
            [spec for spec in shards if spec.methods == methods],
            by_methods(config, methods),
            commit,
            only,
            label,
            progress.note,
        )
        for methods in dict.fromkeys(spec.methods for spec in shards)
    )

    def next_shard() -> dict[str, Any] | None:
        with ending_by(end):
            return next(stream, None)

    try:
        for fields in iter(next_shard, None):
            lock.check()
            shard = CommittedShard(**fields)
            before, done, errors = done, done + shard.rows, errors + shard.errors
            progress.committed(shard)
            report_remaining(label, rows - done)
            events.info("shard.committed", **asdict(shard), rows_done=done, rows_planned=rows)
            if stop_early and before < EARLY_ROWS:
                first.append(shard)
                if done >= EARLY_ROWS:
                    judge(config.output, first)
    except BaseException as e:
        failed(e)
        if isinstance(e, OSError) and not isinstance(e, BrokenPipeError):
            raise OutputError(
                f"{str(e).rstrip('.')}. {done:,} of the {rows:,} rows of this start are committed in "
                f"{OutputFolder(config.output)}, and stay."
            ) from e
        raise
    events.info("run.finished", rows=done, errors=errors)
    return errors
