"""Small runs and rows for the tests of the sink."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from flexray.data.question import ShardSpec
from flexray.sink import CodeVersion, OutputFolder, commit_shard, start_run
from flexray.sink.records import Manifest, RunRecord, keys_digest, manifest_name
from flexray.sink.row_table import ROW_SCHEMA, account, keys_of, to_parquet

PARTS = {
    "model": {"digest": "abc"},
    "prompt": {"answer_prefix": "\nA:"},
    "data": {"files": ["d.jsonl"]},
    "method": "m",
}


def shard(name: str, rows: int = 4) -> ShardSpec:
    return ShardSpec(
        shard_id=name,
        file="d.jsonl",
        format="jsonl",
        first_row=1,
        num_rows=rows,
        row_ids=tuple(f"qa/test/{name}{i}" for i in range(rows)),
    )


CODE = CodeVersion(flexray="0.2.0", commit="c0ffee", source_sha256="a" * 64, values_version=2)
METHODS = ("m",)
SHARDS = [shard("a"), shard("b"), shard("c")]


def row(row_id: str, shard_id: str, **changes: Any) -> dict[str, Any]:
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


def table(
    spec: ShardSpec, *, rows: list[dict[str, Any]] | None = None, methods: Sequence[str] = METHODS
) -> pa.Table:
    if rows is None:
        rows = [row(row_id, spec.shard_id, method=method) for method in methods for row_id in spec.row_ids]
    return pa.Table.from_pylist(rows, schema=ROW_SCHEMA)


def start(folder: OutputFolder, shards: list[ShardSpec] = SHARDS, **changes: Any) -> RunRecord:
    arguments = {
        "parts": PARTS,
        "methods": METHODS,
        "config": {"output": str(folder)},
        "provenance": {"flexray": "0"},
        "code": CODE,
    }
    return start_run(folder, shards=shards, **(arguments | changes))


def commit(folder: OutputFolder, run: RunRecord, spec: ShardSpec, **changes: Any) -> Manifest:
    arguments = {
        "shard_id": spec.shard_id,
        "table": table(spec, methods=run.methods),
        "fingerprint": run.fingerprint,
        "methods": run.methods,
        "engine_stats": {"graphs": 2},
        "seconds": 1.5,
        "expected_row_ids": spec.row_ids,
        "code": CODE,
    }
    return commit_shard(folder, **(arguments | changes))


def finished(folder: OutputFolder, **changes: Any) -> RunRecord:
    run = start(folder, **changes)
    for spec in SHARDS:
        commit(folder, run, spec)
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
