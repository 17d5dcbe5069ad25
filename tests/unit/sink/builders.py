"""Small tables of rows x methods, and rows, for the tests of the sink."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from flexray.data.plan_rows import to_table
from flexray.data.question import Question
from flexray.sink import CodeVersion, OutputFolder, commit_shard, open_run, plan_run, specs_of, whole_shards
from flexray.sink.plan.shards import load_plan
from flexray.sink.plan.staging import stage_table
from flexray.sink.records import Manifest, RunRecord, keys_digest, manifest_name
from flexray.sink.records.rows import ROW_SCHEMA, account, keys_of, to_parquet

PARTS = {
    "model": {"digest": "abc"},
    "prompt": {"answer_prefix": "\nA:"},
    "data": {"name": "qa", "split": "test"},
    "method": "m",
}
CODE = CodeVersion(flexray="0.2.0", commit="c0ffee", source_sha256="a" * 64, values_version=2)
METHODS = ("m",)
ROWS = tuple(f"qa/test/{i}" for i in range(12))
"""Of three shards."""
PLAN_FILE = "plan/0000.parquet"


@dataclass(frozen=True)
class Shard:
    """What a test knows of a planned shard."""

    shard_id: str
    row_ids: tuple[str, ...]
    methods: tuple[str, ...] = METHODS


def shard_id(number: int) -> str:
    return f"qa-test-{number:06d}"


A, B, C = SHARDS = tuple(Shard(shard_id(i), ROWS[4 * i : 4 * i + 4]) for i in range(3))


def question(row_id: str, **changes: Any) -> Question:
    """A question of the source; the same as in `row`."""
    known = {
        "dataset": "qa",
        "split": "test",
        "source_file": "d.jsonl",
        "source_row": 1,
        "source_id": row_id,
        "question": "q?",
        "paraphrases": ("q1?", "q2?"),
        "answers": ("Berlin",),
    }
    return Question(row_id=row_id, **(known | changes))


def found(rows: Sequence[str | Question]) -> pa.Table:
    """The data set (PLAN_SCHEMA) of these questions; only ids: of `question`."""
    return to_table([question(row) if isinstance(row, str) else row for row in rows])


def row(row_id: str, shard_id: str, **changes: Any) -> dict[str, Any]:
    """An output row as a run writes it."""
    good = {
        "row_id": row_id,
        "shard_id": shard_id,
        "dataset": "qa",
        "split": "test",
        "source_file": "d.jsonl",
        "source_row": 1,
        "source_id": row_id,
        "question": "q?",
        "paraphrases": ["q1?", "q2?"],
        "answers": ["Berlin"],
        "relation": "",
        "num_manual": 0,
        "confidences": None,
        "method": "m",
        "prediction": "Berlin",
        "paraphrase_predictions": [],
        "samples": [],
        "correct": True,
        "token_ids": [5, 6, 7],
        "prompt_tokens": 10,
        "finish_reason": "newline",
        "backend_requested": "flex",
        "backend_used": "flex",
        "fallback_reason": "",
        "attempts": 1,
        "error": "",
    }
    return good | changes


ERROR = {
    "prediction": "",
    "correct": None,
    "token_ids": [],
    "finish_reason": "error",
    "backend_used": "",
    "error": "d.jsonl, row 1: bad",
}


def table(shard: Shard, *, rows: list[dict[str, Any]] | None = None) -> pa.Table:
    """Output rows (ROW_SCHEMA); by default good ones."""
    if rows is None:
        rows = [
            row(row_id, shard.shard_id, method=method) for method in shard.methods for row_id in shard.row_ids
        ]
    return pa.Table.from_pylist(rows, schema=ROW_SCHEMA)


def start(
    folder: OutputFolder,
    rows: Sequence[str | Question] = ROWS,
    methods: Sequence[str] = METHODS,
    *,
    shard_rows: int = 4,
    **changes: Any,
) -> RunRecord:
    """What a start does in a folder before it answers anything."""
    known = {"parts": PARTS, "config": {}, "code": CODE}
    opening = known | {k: v for k, v in changes.items() if k in (*known, "allow_code_change")}
    config = {"model": {"path": "m"}} | opening["config"]
    config["data"] = {"shard_rows": shard_rows} | config.get("data", {})
    run = open_run(folder, **(opening | {"config": config}))
    table = found(rows)
    planning = {
        "parts": opening["parts"],
        "config": config,
        "provenance": changes.get("provenance", {"flexray": "0"}),
        "code": opening["code"],
        "replace_changed": changes.get("replace_changed", False),
        "sources": hashlib.sha256(repr(table.to_pylist()).encode()).hexdigest(),
        "methods": methods,
    }
    committed = whole_shards(folder, run) if run else ()
    if run and (run.selection.sources, run.selection.methods) == (planning["sources"], tuple(methods)):
        return run
    return plan_run(folder, run, stage_table(table), committed=committed, **planning)


def planned(folder: OutputFolder, run: RunRecord) -> list[Shard]:
    """The shards of a table, in order."""
    plan = load_plan(folder, run)
    return [
        Shard(shard_id, tuple(plan.row_ids(shard_id)), spec.methods)
        for shard_id, spec in specs_of(folder, run).items()
    ]


def commit(folder: OutputFolder, run: RunRecord, shard: Shard, **changes: Any) -> Manifest:
    """Commit a shard; by default of good rows."""
    arguments = {
        "shard_id": shard.shard_id,
        "table": table(shard),
        "fingerprint": run.fingerprint,
        "methods": shard.methods,
        "engine_stats": {"graphs": 2},
        "seconds": 1.5,
        "expected_row_ids": shard.row_ids,
    }
    code = changes.pop("code", CODE)
    return commit_shard(folder, codes=(code,) if code else (), **(arguments | changes))


def commit_all(folder: OutputFolder, run: RunRecord) -> list[Shard]:
    """Commit what is planned and not committed; returns these shards."""
    before = whole_shards(folder, run)
    todo = [shard for shard in planned(folder, run) if shard.shard_id not in before]
    for shard in todo:
        commit(folder, run, shard)
    return todo


def finished(folder: OutputFolder, rows: Sequence[str | Question] = ROWS, **changes: Any) -> RunRecord:
    """A table of which everything is committed."""
    run = start(folder, rows, **changes)
    commit_all(folder, run)
    return run


def forge(folder: OutputFolder, manifest: Manifest, rows: pa.Table, **changes: Any) -> Manifest:
    """Put other rows behind a shard's manifest and seal it as if they had been committed."""
    data = to_parquet(rows)
    folder.write_bytes(manifest.file, data)
    truth = {
        "rows": rows.num_rows,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    if rows.schema.equals(ROW_SCHEMA):
        truth |= {"keys_sha256": keys_digest(keys_of(rows)), "accounting": account(rows)}
    forged = manifest.model_copy(update=truth | changes).sealed()
    folder.write_bytes(manifest_name(manifest.shard_id), forged.to_bytes())
    return forged


def edit_json(folder: OutputFolder, name: str, **changes: Any) -> None:
    tree = json.loads(folder.read_bytes(name))
    folder.write_bytes(name, json.dumps(tree | changes).encode())
