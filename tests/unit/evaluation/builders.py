"""Small output rows, tables and runs for the tests of the evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from flexray.data.question import ShardSpec
from flexray.evaluation.answer_metrics import PLAIN_TOKENS, exact_match
from flexray.evaluation.scores import MethodScores, collect_scores
from flexray.sink import OutputFolder, commit_shard, start_run
from flexray.sink.row_table import ROW_SCHEMA
from tests.unit.sink.builders import row as good_row

ERROR = "d.jsonl, row 1: bad"


def answered(method: str, number: int, prediction: str, **changes: Any) -> dict[str, Any]:
    """A row as a run writes it; the answer is "Berlin"."""
    own = {"source_row": number + 1, "source_id": str(number), "method": method, "prediction": prediction}
    row = good_row(f"qa/test/{number:06d}", "a", **(own | changes))
    answers = row["answers"]
    return row | {"correct": None if answers is None else exact_match(prediction, answers)} | changes


def failed(method: str, number: int, **changes: Any) -> dict[str, Any]:
    """An error row."""
    error = {"correct": None, "finish_reason": "error", "backend_used": "", "error": ERROR}
    return answered(method, number, "", **(error | changes))


def table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=ROW_SCHEMA)


def scores_of(rows: Iterable[dict[str, Any]]) -> dict[str, MethodScores]:
    return collect_scores([table(list(rows))], PLAIN_TOKENS, where="out")


def commit_run(path: str, rows: Sequence[dict[str, Any]], *, planned: int | None = None) -> None:
    """A run in a folder: the rows of each method, all of the same questions, in one shard.

    `planned`: so many questions are planned; those behind the rows' are in a shard that is not committed.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    row_ids = list(dict.fromkeys(row["row_id"] for row in rows))
    missing = [f"qa/test/missing{i}" for i in range((planned or len(row_ids)) - len(row_ids))]
    shards = [_shard("a", row_ids)] + ([_shard("b", missing)] if missing else [])
    folder = OutputFolder(path)
    folder.prepare()
    run = start_run(folder, parts={"path": path}, methods=methods, config={}, provenance={}, shards=shards)
    commit_shard(
        folder,
        shard_id="a",
        table=table(sorted(rows, key=lambda row: methods.index(row["method"]))),
        fingerprint=run.fingerprint,
        methods=methods,
        engine_stats={},
        seconds=1.0,
        expected_row_ids=row_ids,
    )


def _shard(name: str, row_ids: Sequence[str]) -> ShardSpec:
    return ShardSpec(
        shard_id=name,
        file="d.jsonl",
        format="jsonl",
        first_row=1,
        num_rows=len(row_ids),
        row_ids=tuple(row_ids),
    )
