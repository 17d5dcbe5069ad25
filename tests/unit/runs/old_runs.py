"""Runs as flexray 0.1 wrote them (schema version 3, which cannot grow), and their adoption."""

import hashlib
import io
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flexray.runs.adopt import adopt
from flexray.sink import OutputFolder, read_committed
from flexray.sink.records import fingerprint
from flexray.sink.records.sealed import spell
from tests.ray.jobs import make_config

METHODS = [{"kind": "attention"}, {"kind": "per_prompt"}]


def make_old(output: Path) -> Path:
    """Turn the output folder of a run into an old one, in place; returns it."""
    run = json.loads((output / "_run.json").read_text())
    manifests = sorted((output / "_manifests").glob("*.json"))
    pairs = []
    for path in manifests:
        manifest = json.loads(path.read_text())
        table = pq.read_table(output / manifest["file"])
        ids = dict.fromkeys(table["row_id"].to_pylist())
        pairs += [(manifest["shard_id"], row_id) for row_id in ids]
    stream = io.BytesIO()
    schema = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("shard_id", "row_id")])
    columns = list(zip(*pairs, strict=True))
    pq.write_table(pa.table([pa.array(column) for column in columns], schema=schema), stream)
    plan = stream.getvalue()
    (output / "_plan.parquet").write_bytes(plan)
    prompt = {key: value for key, value in run["parts"]["prompt"].items() if key != "few_shot_data"}
    prompt["cue"] = prompt.pop("answer_prefix")
    parts = {
        **{key: value for key, value in run["parts"].items() if key != "values_version"},
        "data": run["parts"]["data"] | {"digest": "0" * 64, "rows": len(pairs)},
        "prompt": prompt,
        "methods": run["config"]["methods"],
    }
    old = {
        "schema_version": 3,
        "created": run["created"],
        "fingerprint": fingerprint(parts),
        "parts": parts,
        "methods": run["selection"]["methods"],
        "config": run["config"],
        "provenance": {"flexray": "0.1.0"},
        "row_schema": run["row_schema"],
        "plan": {
            "file": "_plan.parquet",
            "shards": len(manifests),
            "rows": len(pairs),
            "bytes": len(plan),
            "sha256": hashlib.sha256(plan).hexdigest(),
            "pairs_sha256": hashlib.sha256(spell(pairs)).hexdigest(),
        },
        "rebuilt": "",
    }
    _write(output / "_run.json", old)
    for path in manifests:
        manifest = json.loads(path.read_text())
        manifest = {key: value for key, value in manifest.items() if key not in ("digest", "code")}
        _write(path, manifest | {"schema_version": 3, "fingerprint": old["fingerprint"]})
    shutil.rmtree(output / "plan")
    return output


def config_of(output, model, *files, methods=METHODS, **sections):
    config = make_config(output, model, *files, **sections)
    return type(config).model_validate(config.model_dump(mode="json") | {"methods": methods})


def adopt_all(config, *folders):
    """What came of it, and what was said."""
    said = []
    return adopt(config, [str(folder) for folder in folders], log=said.append), said


def rows_in(output):
    tables = read_committed(OutputFolder(str(output)), everything=True)
    rows = {(row["method"], row["row_id"]): row for table in tables for row in table.to_pylist()}
    return {key: {name: row[name] for name in row if name != "shard_id"} for key, row in rows.items()}


def _write(path: Path, tree: dict) -> None:
    path.write_text(json.dumps(tree | {"digest": hashlib.sha256(spell(tree)).hexdigest()}))
