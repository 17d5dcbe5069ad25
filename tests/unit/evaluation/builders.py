"""Small output rows, tables and runs for the tests of the evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from flexray.config import EvaluationConfig
from flexray.evaluation.answer_metrics import PLAIN_TOKENS, exact_match
from flexray.evaluation.metrics import Metric, make_metrics
from flexray.evaluation.scores import MethodScores, collect_scores
from flexray.sink import OutputFolder
from flexray.sink.records.rows import ROW_SCHEMA
from tests.unit.sink.builders import PARTS, Shard, commit, shard_id, start
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


def metrics(**settings: Any) -> dict[str, Metric]:
    return make_metrics(EvaluationConfig(**settings), PLAIN_TOKENS)


def scores_of(rows: Iterable[dict[str, Any]], **settings: Any) -> dict[str, MethodScores]:
    return collect_scores([table(list(rows))], metrics(**settings), where="out")


def commit_run(
    path: str, rows: Sequence[dict[str, Any]], *, planned: int | None = None, **record: Any
) -> None:
    """A run in a folder: the rows of each method, all of the same questions, in one shard.

    `planned`: so many questions are planned; those behind the rows' are in a shard that is not committed.
    `record`: other fields of the run record.
    """
    methods = tuple(dict.fromkeys(row["method"] for row in rows))
    row_ids = list(dict.fromkeys(row["row_id"] for row in rows))
    missing = [f"qa/test/missing{i}" for i in range((planned or len(row_ids)) - len(row_ids))]
    folder = OutputFolder(path)
    folder.prepare()
    run = start(
        folder, row_ids + missing, methods, shard_rows=len(row_ids), parts=PARTS | {"path": path}, **record
    )
    shard = Shard(shard_id(0), tuple(row_ids), methods)
    made = [row | {"shard_id": shard.shard_id} for row in rows]
    commit(folder, run, shard, table=table(sorted(made, key=lambda row: methods.index(row["method"]))))
