"""How quickly a finished table is recognised: what a start with nothing to do costs.

python -m benchmarks.finished --shards 2000 --rows 500
"""

from __future__ import annotations

import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer

from benchmarks.machine import describe_commit, describe_machine
from flexray.data.plan_rows import PLAN_SCHEMA, with_digests
from flexray.sink import OutputFolder, commit_shard, compact, open_run, plan_run, specs_of, whole_shards
from flexray.sink.commit.compaction import MAX_SINGLE_MANIFESTS
from flexray.sink.plan.staging import stage_table
from flexray.sink.records.rows import ROW_SCHEMA

METHOD = "origin"
PARTS = {"data": {"name": "bench", "split": "test"}}


def main(
    shards: Annotated[int, typer.Option(help="Shards of the table.")] = 2_000,
    rows: Annotated[int, typer.Option(help="Rows of a shard.")] = 500,
    folder: Annotated[str, typer.Option(help="Where to make the table; it is kept.")] = "",
) -> None:
    """Make a finished table, and time what a start does with it."""
    with tempfile.TemporaryDirectory() as temporary:
        place = OutputFolder(folder or str(Path(temporary, "out")))
        config = {"data": {"shard_rows": rows}}
        marks = [time.perf_counter()]
        _make(place, shards, rows, config)
        marks.append(time.perf_counter())
        run = open_run(place, parts=PARTS, config=config)
        assert run is not None
        marks.append(time.perf_counter())
        committed = whole_shards(place, run)
        marks.append(time.perf_counter())
        specs = specs_of(place, run)
        marks.append(time.perf_counter())
    assert len(specs) == shards
    assert specs.keys() == committed.keys()
    made, opened, listed, planned = (after - before for before, after in pairwise(marks))
    print(f"{shards:,} shards of {rows:,} rows; made in {made:.0f} s")
    print(f"open_run {opened:.2f} s, whole_shards {listed:.2f} s, specs_of {planned:.2f} s")
    print(f"a finished table is recognised in {opened + listed + planned:.2f} s")
    print(f"{describe_machine()['hardware']}; commit {describe_commit()}")


def _make(folder: OutputFolder, shards: int, rows: int, config: dict[str, Any]) -> None:
    folder.prepare()
    questions = _questions(shards * rows)
    planning = {"config": config, "provenance": {}, "sources": "made"}
    run = plan_run(folder, None, stage_table(questions), parts=PARTS, methods=(METHOD,), **planning)
    for number, (shard_id, spec) in enumerate(specs_of(folder, run).items(), 1):
        planned = questions.slice((number - 1) * rows, rows)
        commit_shard(
            folder,
            shard_id=shard_id,
            table=_answers(planned, shard_id),
            fingerprint=run.fingerprint,
            methods=spec.methods,
            engine_stats={"prefill_seconds": 1.0, "decode_seconds": 2.0, "generated_tokens": 3 * rows},
            seconds=1.0,
            expected_row_ids=planned["row_id"].to_pylist(),
        )
        if number % (MAX_SINGLE_MANIFESTS + 1) == 0:
            compact(folder, run.fingerprint)  # as the start of a run does


def _questions(rows: int) -> pa.Table:
    """PLAN_SCHEMA."""
    texts = {"source_file": "d.jsonl", "question": "", "relation": "", "error": ""}
    ids = [f"bench/test/{i}" for i in range(rows)]
    columns = {name: pa.repeat(pa.scalar(text), rows) for name, text in texts.items()} | {
        "row_id": pa.array(ids),
        "source_row": pa.array(range(1, rows + 1), pa.int64()),
        "source_id": pa.array(map(str, range(rows))),
        "question": pa.array([f"Who wrote book {i}?" for i in range(rows)]),
        "paraphrases": pa.array([[f"Who is the author of book {i}?", f"{i} is by?"] for i in range(rows)]),
        "answers": pa.array([[f"author {i}"] for i in range(rows)]),
        "num_manual": pa.array([0] * rows, pa.int32()),
        "confidences": pa.nulls(rows, PLAN_SCHEMA.field("confidences").type),
    }
    return with_digests({name: columns[name] for name in PLAN_SCHEMA.names[:-1]})


def _answers(planned: pa.Table, shard_id: str) -> pa.Table:
    """ROW_SCHEMA: a good row for each question."""
    rows = planned.num_rows
    answer: dict[str, Any] = {
        "shard_id": shard_id,
        "dataset": "bench",
        "split": "test",
        "method": METHOD,
        "prediction": "author",
        "paraphrase_predictions": [],
        "samples": [],
        "correct": False,
        "token_ids": [1, 2, 3],
        "prompt_tokens": 40,
        "finish_reason": "newline",
        "backend_requested": "flex",
        "backend_used": "flex",
        "fallback_reason": "",
        "attempts": 1,
    }
    columns = [
        pa.array([answer[field.name]] * rows, field.type)
        if field.name in answer
        else planned[field.name].combine_chunks()
        for field in ROW_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=ROW_SCHEMA)


if __name__ == "__main__":
    typer.run(main)
