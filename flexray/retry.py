"""Redo the error rows of committed shards, and nothing else: good rows stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flexray.config import RunConfig
from flexray.evaluation import to_table
from flexray.pipeline import AnsweredShard, answer_shards, connect
from flexray.run import Say, plan_job
from flexray.sink import (
    Manifest,
    OutputFolder,
    committed_shards,
    compact,
    hold,
    load_run,
    recommit_shard,
)
from flexray.sink.committed import load_shard
from flexray.sink.rows import keys_of
from flexray.types import ShardSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryResult:
    """What came of the error rows."""

    retried: int
    answered: int

    def summary_line(self) -> str:
        """For people and programs."""
        still_errors = self.retried - self.answered
        return f"retried={self.retried} answered={self.answered} still_errors={still_errors}"


def retry_errors(config: RunConfig, *, say: Say = print) -> RetryResult:
    """Answer the error rows of a run's committed shards again; what is not committed is left to `run`.

    Args:
        say: is told a line for each shard that is redone.

    Raises:
        UserError: the output folder holds no run, or another one, or something else that the user can
            put right; raised before any model is loaded, where it can be.
    """
    folder = OutputFolder(config.output)
    load_run(folder)  # where there is no run, none is to be started
    job = plan_job(config, folder)
    config, found = job.config, job.found
    answered = 0
    with hold(folder, say=say) as lock:
        record = job.start(folder)
        committed = committed_shards(folder, record.fingerprint)
        faulty = {name: manifest for name, manifest in committed.items() if manifest.accounting.errors}
        if faulty:
            connect(config.ray)
            recommit = Recommit(folder.url, record.methods, faulty)
            todo = [spec for spec in found.shards if spec.shard_id in faulty]
            for shard in answer_shards(todo, config, recommit, only=recommit.failed_row_ids):
                lock.check()
                answered += shard["answered"]
                say(f"{shard['shard_id']}: {shard['answered']} of {shard['errors']} error rows answered now")
            lock.check()
            compact(folder, record.fingerprint)
    return RetryResult(retried=sum(m.accounting.errors for m in faulty.values()), answered=answered)


@dataclass(frozen=True, slots=True)
class Recommit:
    """Puts new answers in the place of error rows; travels to Ray's workers."""

    output: str
    methods: tuple[str, ...]
    before: dict[str, Manifest]  # of the shards with errors, by shard id

    def failed_row_ids(self, spec: ShardSpec) -> frozenset[str]:
        """The questions of a shard that some method has not answered."""
        table = load_shard(OutputFolder(self.output), self.before[spec.shard_id])
        return frozenset(table.filter(pc.not_equal(table["error"], ""))["row_id"].to_pylist())

    def __call__(self, shard: AnsweredShard) -> dict[str, Any]:
        """Commit, if any row is better now, and say what: shard_id, errors (before), answered."""
        folder, old = OutputFolder(self.output), self.before[shard.spec.shard_id]
        retries = [*old.engine_stats.get("retries", ()), shard.engine_stats]
        new = recommit_shard(
            folder,
            old,
            merge(load_shard(folder, old), to_table(shard, self.methods)),
            engine_stats=old.engine_stats | {"retries": retries},  # the good rows are still of then
            seconds=round(old.seconds + shard.seconds, 3),
        )
        errors = old.accounting.errors
        return {"shard_id": old.shard_id, "errors": errors, "answered": errors - new.accounting.errors}


def merge(old: pa.Table, new: pa.Table) -> pa.Table:
    """`old`, with the rows of `new` that are answered in the place of its error rows."""
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
