"""The commit of a run: called in Ray's workers with each answered shard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flexray.config.plugins import load_plugins
from flexray.data.plan_rows import read_planned
from flexray.evaluation import to_table
from flexray.pipeline.shards import AnsweredShard
from flexray.runs.fingerprint import code_version
from flexray.sink import CodeVersion, OutputFolder, commit_shard


def count_empty(table: pa.Table) -> int:
    """The answered rows (ROW_SCHEMA) whose prediction has no text."""
    said = table["prediction"].filter(pc.equal(table["error"], ""))
    return int(pc.sum(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(said)), 0)).as_py() or 0)


@dataclass(frozen=True, slots=True)
class Commit:
    """Scores and commits the answers of a shard; sent to Ray's workers."""

    output: str
    fingerprint: str
    plugins: tuple[str, ...] = ()
    code: CodeVersion = field(default_factory=code_version)
    """The version of the driver's code; the workers run a copy of it."""

    def __call__(self, shard: AnsweredShard) -> dict[str, Any]:
        """Commit a shard; returns the fields of a CommittedShard."""
        load_plugins(self.plugins)
        table = to_table(shard, shard.spec.methods)
        manifest = commit_shard(
            OutputFolder(self.output),
            shard_id=shard.spec.shard_id,
            table=table,
            fingerprint=self.fingerprint,
            methods=shard.spec.methods,
            codes=(self.code,),
            engine_stats=shard.engine_stats,
            seconds=round(shard.seconds, 3),
            expected_row_ids=read_planned(shard.spec, ["row_id"])["row_id"].to_pylist(),
        )
        return {
            "shard_id": manifest.shard_id,
            "rows": manifest.rows,
            "errors": manifest.accounting.errors,
            "fallbacks": manifest.accounting.fallbacks,
            "empty": count_empty(table),
            "seconds": manifest.seconds,
        }
