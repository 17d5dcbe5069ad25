"""Runs for the tests of the page: hostile, and of a thousand shards."""

from __future__ import annotations

import hashlib
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flexray.sink import Manifest, OutputFolder
from flexray.sink.commit.compaction import replace_manifest_files
from flexray.sink.records import keys_digest
from flexray.sink.records.rows import account, keys_of, to_parquet
from tests.unit.sink.builders import (
    ERROR,
    Shard,
    commit,
    planned,
    question,
    row,
    shard_id,
    start,
    table,
)

MANY_METHODS = ("attention/shared_context/restart", "origin", "avg")
RIGHT = {"attention/shared_context/restart": 0.62, "origin": 0.55, "avg": 0.6}
OUT_OF_MEMORY = "flex: CUDA out of memory. Tried to allocate 2.50 GiB; half as many rows at once"
NO_COMPILER = "flex: InductorError: no C++ compiler was found; sdpa answers"


SERVER = "http://127.0.0.1:1"
"""A port that no server has; a test watches whether anything is asked of it."""
HOSTILE = (
    f'"><img src="{SERVER}/img" onerror="document.title=\'owned\'">'
    f"<script src='{SERVER}/script'></script>"
    f"<script>document.title='owned'</script><style>@import '{SERVER}/css';</style>"
    f"<link rel=stylesheet href='{SERVER}/link'><iframe src='{SERVER}/frame'></iframe>"
    f"<svg onload=document.title='owned'><a href='javascript:document.title=1'>x</a></svg>"
    "</td></table></script></style></title><!-- {{ 7 * 7 }} {% raw %} &amp; $x^ \x00\x1b[31m\u202e\u2028"
)
"""Markup that would call the server, and mark the document, if any of it were not text."""


def hostile_run(place: Path) -> OutputFolder:
    """A run in which every text is hostile: an error, a good row and a fallback, by two methods."""
    folder = OutputFolder(str(place))
    folder.prepare()
    methods = (HOSTILE, "other")
    questions = [
        question(f"{HOSTILE}{i}", question=HOSTILE, paraphrases=(HOSTILE,), answers=(HOSTILE,))
        for i in range(3)
    ]
    known = {"config": {"data": {"name": HOSTILE}, HOSTILE: [HOSTILE]}, "provenance": {HOSTILE: HOSTILE}}
    run = start(folder, questions, methods, **known)
    (spec,) = planned(folder, run)
    texts = {"question": HOSTILE, "paraphrases": [HOSTILE], "answers": [HOSTILE], "prediction": HOSTILE}
    error = ERROR | {"error": HOSTILE, "source_file": HOSTILE}
    fallback = {"backend_used": HOSTILE, "fallback_reason": HOSTILE}
    rows = [
        row(row_id, spec.shard_id, method=method, **(texts | values))
        for method in methods
        for row_id, values in zip(
            spec.row_ids, (error, {"correct": method == HOSTILE}, fallback), strict=True
        )
    ]
    commit(folder, run, spec, table=table(spec, rows=rows))
    return folder


def many_shards(folder: OutputFolder, shards: int = 1_000, *, committed: int | None = None) -> None:
    """A run of four actors that took an hour: some shards slow, some with errors, some fallen back.

    `folder` is local: data files are written without waiting for the disk, which takes most of the time.
    """
    chance = random.Random(0)
    ids = [f"qa/test/{number}" for number in range(3 * shards)]
    specs = [Shard(shard_id(n), tuple(ids[3 * n : 3 * n + 3])) for n in range(shards)]
    run = start(
        folder,
        ids,
        methods=MANY_METHODS,
        config={
            "output": str(folder),
            "data": {"name": "qa", "split": "test", "files": "s3://bucket/qa-*.parquet", "shard_rows": 3},
            "model": {"path": "models/llama-3.2-3b", "dtype": "bfloat16"},
            "methods": [{"kind": method.partition("/")[0]} for method in MANY_METHODS],
            "engine": {"backend": "flex", "strict": False},
        },
        provenance={"flexray": "0.1", "python": "3.12.4", "torch": "2.11.0"},
    )
    begun = datetime.fromisoformat(run.created) + timedelta(minutes=2)
    actors = [0.0] * 4  # when each is free
    manifests = []
    Path(folder.url, "data").mkdir()
    for number, spec in enumerate(specs[:committed]):
        fault = "slow" if number % 97 == 5 else "memory" if number % 41 == 7 else ""
        seconds = round(chance.gauss(14, 1.5) * (4 if fault == "slow" else 1.6 if fault else 1), 3)
        actor = actors.index(min(actors))
        actors[actor] += seconds
        rows = [
            _row(chance, spec.shard_id, row_id, method, fault, failed=number % 29 == 3 and place == 1)
            for method in MANY_METHODS
            for place, row_id in enumerate(spec.row_ids)
        ]
        committed_at = begun + timedelta(seconds=actors[actor])
        manifests.append(_manifest(folder, run.fingerprint, spec.shard_id, rows, seconds, committed_at))
    replace_manifest_files(folder, [], manifests)


def _row(
    chance: random.Random, shard: str, row_id: str, method: str, fault: str, *, failed: bool
) -> dict[str, Any]:
    right = chance.random() < RIGHT[method]
    changes: dict[str, Any] = {
        "method": method,
        "prediction": "Berlin" if right else "Paris",
        "correct": right,
        "prompt_tokens": round(chance.lognormvariate(5.2, 0.35)),
        "token_ids": list(range(min(16, 1 + round(chance.expovariate(0.3))))),
        "finish_reason": "newline" if chance.random() < 0.9 else "length",
    }
    if fault == "memory":
        changes["fallback_reason"] = OUT_OF_MEMORY
    if fault == "slow":
        changes |= {"backend_used": "sdpa", "fallback_reason": NO_COMPILER}
    if failed:
        number = row_id.removeprefix("qa/test/")
        what = "value is empty (value: ''). Give each question a text."
        changes |= ERROR | {
            "fallback_reason": "",
            "error": f"s3://bucket/qa-0.parquet, row {number}, field 'question': {what}",
        }
    return row(row_id, shard, **changes)


def _manifest(
    folder: OutputFolder,
    fingerprint: str,
    shard: str,
    rows: list[dict[str, Any]],
    seconds: float,
    committed_at: datetime,
) -> Manifest:
    rows_table = table(Shard(shard, ()), rows=rows)
    data = to_parquet(rows_table)
    name = f"data/{shard}-{hashlib.md5(shard.encode()).hexdigest()}.parquet"
    Path(folder.url, name).write_bytes(data)
    generated = sum(len(found["token_ids"]) for found in rows)
    return Manifest(
        shard_id=shard,
        fingerprint=fingerprint,
        file=name,
        rows=len(rows),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        keys_sha256=keys_digest(keys_of(rows_table)),
        accounting=account(rows_table),
        engine_stats={
            "context_tokens": 0,
            "prefill_tokens": sum(found["prompt_tokens"] for found in rows),
            "generated_tokens": generated,
            "decode_steps": 1 + generated // 6,
            "prefill_seconds": round(seconds * 0.35, 3),
            "decode_seconds": round(seconds * 0.55, 3),
            "mask_cache": {"hits": 1_000 + generated, "misses": 9},
            "seconds": seconds,
        },
        created=committed_at.astimezone(UTC).isoformat(timespec="seconds"),
        seconds=seconds,
    ).sealed()
