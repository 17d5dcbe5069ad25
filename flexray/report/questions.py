"""Questions with what each method answered: the examples that `show` prints, and the rows of the page."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from flexray.evaluation.accuracy import row_scores
from flexray.evaluation.metrics import Metric


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What one method said."""

    method: str
    prediction: str
    right: bool | None
    """Whether the headline metric is 1. None: an error, or nothing to score against."""
    backend: str
    fallback_reason: str
    error: str
    shard_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweredQuestion:
    """A question with the answers of all methods."""

    row_id: str
    question: str
    paraphrases: tuple[str, ...]
    gold: tuple[str, ...] | None
    """Accepted answers; None: nothing to score against."""
    source: str
    answers: list[Answer]


def answered_questions(table: pa.Table, metric: Metric | None) -> list[AnsweredQuestion]:
    """The questions of some rows (ROW_SCHEMA), in order.

    Args:
        metric: what says whether an answer is right. None: exact match.
    """
    found: dict[str, AnsweredQuestion] = {}
    columns = ["row_id", "question", "paraphrases", "answers", "source_file", "source_row", "method"]
    columns += ["prediction", "backend_used", "fallback_reason", "error", "shard_id"]
    scores = row_scores(table, metric).to_pylist()
    for row, score in zip(table.select(columns).to_pylist(), scores, strict=True):
        if row["row_id"] not in found:
            found[row["row_id"]] = AnsweredQuestion(
                row_id=row["row_id"],
                question=row["question"],
                paraphrases=tuple(row["paraphrases"]),
                gold=None if row["answers"] is None else tuple(row["answers"]),
                source=f"{row['source_file']}, row {row['source_row']}",
                answers=[],
            )
        answer = Answer(
            method=row["method"],
            prediction=row["prediction"],
            right=None if score is None else score == 1,
            backend=row["backend_used"],
            fallback_reason=row["fallback_reason"],
            error=row["error"],
            shard_id=row["shard_id"],
        )
        found[row["row_id"]].answers.append(answer)
    return list(found.values())
