"""Answer the error rows of committed shards again; good rows stay as they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flexray.config import RunConfig
from flexray.config.plugins import load_plugins
from flexray.console.progress import Lines, LogLine, Progress
from flexray.data.question import ShardSpec
from flexray.evaluation import to_table
from flexray.methods import make_methods
from flexray.pipeline.shards import AnsweredShard
from flexray.runs.fingerprint import code_version
from flexray.runs.job import check_job, resume
from flexray.runs.run import answer
from flexray.sink import (
    CodeVersion,
    Manifest,
    OutputFolder,
    checked_specs,
    compact,
    hold,
    load_run,
    recommit_shard,
)
from flexray.sink.read.committed import load_shard
from flexray.sink.read.visible import View, seen_manifests, view
from flexray.sink.records.rows import keys_of


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryResult:
    """How many error rows were tried again, and how many of them are answered now."""

    retried: int
    answered: int

    def summary_line(self) -> str:
        """One line for people and programs."""
        still_errors = self.retried - self.answered
        return f"retried={self.retried} answered={self.answered} still_errors={still_errors}"


def retry_errors(
    config: RunConfig,
    *,
    allow_code_change: bool = False,
    log: LogLine = print,
    progress: Progress | None = None,
) -> RetryResult:
    """Answer the error rows of a run's committed shards again; what is not committed is left to `run`.

    Args:
        allow_code_change: also of a run of another values version.
        log: called with each line about the progress.
        progress: receives the progress in place of `log`. None: `Lines(log)`.

    Raises:
        UserError: the output folder holds no run, or another one, or something else that the user can
            put right, found before any model is loaded if possible.
    """
    progress = progress or Lines(log)
    folder = OutputFolder(config.output)
    load_run(folder)  # raises if there is no run: none is to be started
    job = check_job(config, folder)
    for line in job.notes:
        progress.note(line)
    still_errors = 0
    with hold(folder, log=progress.note) as lock:
        planned = resume(job, folder, allow_code_change=allow_code_change)
        config, record = planned.config, planned.record
        known = {method.name for method in make_methods(config.methods)}
        seen = view(folder, record)
        errors = {
            name: manifest.accounting.errors
            for name, manifest in seen_manifests(folder, seen, planned.committed).items()
        }
        faulty = {
            name: manifest
            for name, manifest in planned.committed.items()
            if errors.get(name) and set(manifest.accounting.rows_by_method) <= known
        }
        specs = checked_specs(folder, record, faulty)
        rows = sum(errors[name] for name in faulty)
        if faulty:
            progress.note(f"{folder}: {rows} error rows in {len(faulty)} shards are tried again")
            recommit = Recommit(folder.url, faulty, seen.of_shards(faulty), config.plugins)
            still_errors = answer(
                specs,
                config,
                recommit,
                lambda done: f"{done} of {rows} error rows have been tried again",
                rows=rows,
                record=record,
                lock=lock,
                progress=progress,
                only=recommit.failed_row_ids,
            )
            lock.check()
            compact(folder, record.fingerprint)
    return RetryResult(retried=rows, answered=rows - still_errors)


@dataclass(frozen=True, slots=True)
class Recommit:
    """Replaces error rows by new answers; sent to Ray's workers."""

    output: str
    before: dict[str, Manifest]  # of the shards with errors, by shard id
    seen: View  # rows that were replaced or left out since are not tried again
    plugins: tuple[str, ...] = ()
    code: CodeVersion = field(default_factory=code_version)

    def failed_row_ids(self, spec: ShardSpec) -> frozenset[str]:
        """The row ids of a shard that at least one method has not answered."""
        table = load_shard(OutputFolder(self.output), self.before[spec.shard_id])
        return frozenset(self._failed(spec.shard_id, table)["row_id"].to_pylist())

    def _failed(self, shard_id: str, table: pa.Table) -> pa.Table:
        table = self.seen.of_shard(shard_id, table)
        return table.filter(pc.not_equal(table["error"], ""))

    def __call__(self, shard: AnsweredShard) -> dict[str, Any]:
        """Commit if any row is answered now; returns the fields of a CommittedShard, which counts the rows
        that were errors before."""
        load_plugins(self.plugins)
        folder, old = OutputFolder(self.output), self.before[shard.spec.shard_id]
        retries = [*old.engine_stats.get("retries", ()), shard.engine_stats]
        before, after = load_shard(folder, old), to_table(shard, shard.spec.methods)
        merged = merge(before, after)
        recommit_shard(
            folder,
            old,
            merged,
            engine_stats=old.engine_stats | {"retries": retries},  # the good rows were computed then
            seconds=round(old.seconds + shard.seconds, 3),
            code=self.code,
        )
        failed = self._failed(old.shard_id, before)
        again = set(keys_of(failed))
        fell_back = after.filter(pc.not_equal(after["fallback_reason"], ""))
        return {
            "shard_id": old.shard_id,
            "rows": failed.num_rows,
            "errors": self._failed(old.shard_id, merged).num_rows,
            "fallbacks": sum(key in again for key in keys_of(fell_back)),
            "empty": 0,
            "seconds": round(shard.seconds, 3),
        }


def merge(old: pa.Table, new: pa.Table) -> pa.Table:
    """`old`, with its error rows replaced by the rows of `new` that are answered."""
    answered = {
        key: place
        for place, (key, error) in enumerate(zip(keys_of(new), new["error"].to_pylist(), strict=True))
        if not error
    }
    places = [
        old.num_rows + answered[key] if error and key in answered else place
        for place, (key, error) in enumerate(zip(keys_of(old), old["error"].to_pylist(), strict=True))
    ]
    return pa.concat_tables([old, new]).take(places)
