"""A shard's answers as output rows: scored, and each with how it was computed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from flexray.evaluation.match import exact_match, normalize_answer
from flexray.types import ROW_SCHEMA, Generation, Question

if TYPE_CHECKING:  # the pipeline brings Ray and torch, which evaluating output does not need
    from flexray.pipeline import AnsweredShard


def to_table(shard: AnsweredShard, methods: tuple[str, ...]) -> pa.Table:
    """ROW_SCHEMA: for each method in turn, a row for each question in order."""
    rows = []
    for number, method in enumerate(methods):
        columns = (shard.questions, shard.answers, shard.texts, shard.prompt_tokens)
        for question, answers, texts, prompt_tokens in zip(*columns, strict=True):
            row = _row(question, answers[number], texts[number])
            # the one method of which each paraphrase's answer is an answer of its own
            each_alone = method == "per_prompt" and not row["error"]
            row["paraphrase_predictions"] = texts[number] if each_alone else ()
            row |= {"method": method, "shard_id": shard.spec.shard_id, "prompt_tokens": prompt_tokens}
            rows.append(row)
    return pa.Table.from_pylist(rows, schema=ROW_SCHEMA)


def _row(question: Question, generations: tuple[Generation, ...], texts: tuple[str, ...]) -> dict[str, Any]:
    """One row. Of several answers, one for each paraphrase, the most frequent counts."""
    chosen = most_frequent(texts)
    generation, text = generations[chosen], texts[chosen]
    scored = not generation.error and question.answers is not None
    return {
        **dataclasses.asdict(question),
        **dataclasses.asdict(generation),
        "prediction": text,
        "correct": exact_match(text, question.answers or ()) if scored else None,
        "error": generation.error,
    }


def most_frequent(texts: tuple[str, ...]) -> int:
    """Index of the first text among those that, normalised, are there most often.

    >>> most_frequent(("Rome", "the Paris", "paris"))
    1
    """
    normal = [normalize_answer(text) for text in texts]
    return normal.index(Counter(normal).most_common(1)[0][0])
