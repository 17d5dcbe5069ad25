"""The row as a run has committed it, if it has."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc

from flexray.config import RunConfig
from flexray.errors import UserError
from flexray.report.explain.explanation import Committed
from flexray.sink import OutputFolder, committed_shards, load_run
from flexray.sink.committed import load_shard
from flexray.sink.differences import differences
from flexray.sink.plan import Plan, load_plan
from flexray.sink.records import RUN_FILE
from flexray.storage import redact

SECTIONS = ("model", "prompt", "generation", "engine")
"""Of a configuration: those that decide on a row's tokens."""


def find_committed(config: RunConfig, row_id: str, method: str) -> Committed | str:
    """The committed row, or why there is none: that its folder cannot be trusted, too. Nothing is written."""
    try:
        folder = OutputFolder(config.output)
        if RUN_FILE not in folder.list():
            return f"nothing to compare with: {folder} holds no run"
        run = load_run(folder)
        if method not in run.methods:
            return f"{folder}: the run there has no method {method}"
        shard_id = Plan(load_plan(folder, run)).shards_of([row_id]).get(row_id)
        if shard_id is None:
            return f"{folder}: the run there has no row {row_id}"
        manifest = committed_shards(folder, run.fingerprint).get(shard_id)
        if manifest is None:
            return f"{folder}: shard {shard_id} is not committed yet"
        table = load_shard(folder, manifest)
    except (UserError, OSError) as e:
        return str(e)
    here = pc.and_(pc.equal(table["row_id"], row_id), pc.equal(table["method"], method))
    (row,) = table.filter(here).to_pylist()
    return Committed(
        shard_id=shard_id,
        token_ids=tuple(row["token_ids"]),
        prediction=row["prediction"],
        paraphrase_predictions=tuple(row["paraphrase_predictions"]),
        finish_reason=row["finish_reason"],
        backend_used=row["backend_used"],
        fallback_reason=row["fallback_reason"],
        error=row["error"],
        changed=_changed(run.config, config),
    )


def _changed(then: dict[str, Any], config: RunConfig) -> tuple[str, ...]:
    now = redact(config.model_dump(mode="json", include=set(SECTIONS)))
    return tuple(differences({name: then.get(name) for name in SECTIONS}, now))
