"""Questions with what each method answered: the examples that `show` prints, and the rows of the page."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from flexray.evaluation.accuracy import row_scores
from flexray.evaluation.metrics import Metric

QUESTION = ("row_id", "question", "paraphrases", "answers", "source_file", "source_row")
SAID = ("method", "prediction", "backend_used", "fallback_reason", "error", "shard_id")


def answered_questions(table: pa.Table, metric: Metric | None) -> list[dict[str, Any]]:
    """The questions of some rows (ROW_SCHEMA), in order: each with its columns QUESTION, and in `said` each
    method's answer: its columns SAID, and whether it is `right`, that is whether the metric is 1; None: an
    error, or nothing to score against.

    Args:
        metric: what says whether an answer is right. None: exact match.
    """
    found: dict[str, dict[str, Any]] = {}
    scores = row_scores(table, metric).to_pylist()
    for row, score in zip(table.select([*QUESTION, *SAID]).to_pylist(), scores, strict=True):
        question = found.setdefault(row["row_id"], {name: row[name] for name in QUESTION} | {"said": []})
        right = None if score is None else score == 1
        question["said"].append({name: row[name] for name in SAID} | {"right": right})
    return list(found.values())
