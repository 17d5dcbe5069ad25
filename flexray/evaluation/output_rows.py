"""A shard's answers as output rows: scored, and each with how it was computed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from flexray.data.question import Question
from flexray.engine.generation import Generation
from flexray.evaluation.answer_metrics import exact_match, normalize_answer
from flexray.methods import Answers, answers_of
from flexray.sink.row_table import ROW_SCHEMA

if TYPE_CHECKING:  # the pipeline brings Ray and torch, which evaluating output does not need
    from flexray.pipeline.shards import AnsweredShard


def to_table(shard: AnsweredShard, methods: tuple[str, ...]) -> pa.Table:
    """ROW_SCHEMA: for each method in turn, a row for each question in order."""
    rows = []
    for number, method in enumerate(methods):
        kind = answers_of(method)
        columns = (shard.questions, shard.answers, shard.texts, shard.prompt_tokens)
        for question, answers, texts, prompt_tokens in zip(*columns, strict=True):
            row = _row(question, kind, answers[number], texts[number])
            row |= {"method": method, "shard_id": shard.spec.shard_id, "prompt_tokens": prompt_tokens}
            rows.append(row)
    return pa.Table.from_pylist(rows, schema=ROW_SCHEMA)


def _row(
    question: Question, kind: Answers, generations: tuple[Generation, ...], texts: tuple[str, ...]
) -> dict[str, Any]:
    """One row. Of several answers, one for each paraphrase or sample, the most frequent counts."""
    confidences = question.confidences
    several: dict[str, tuple[str, ...]] = {"paraphrase_predictions": (), "samples": ()}
    if generations[0].error:
        pass
    elif kind == "paraphrases":
        several["paraphrase_predictions"] = texts
    elif kind == "samples":
        several["samples"] = texts
    elif kind == "rated":
        group = len(texts) // len(question.paraphrases)  # the greedy answer, and those drawn
        confidences = tuple(share_of_equals(texts[i : i + group]) for i in range(0, len(texts), group))
        generations, texts = generations[::group], texts[::group]
        several["paraphrase_predictions"] = texts
    chosen = most_frequent(texts)
    generation, text = generations[chosen], texts[chosen]
    scored = not generation.error and question.answers is not None
    return {
        **dataclasses.asdict(question),
        **dataclasses.asdict(generation),
        **several,
        "confidences": confidences,
        "prediction": text,
        "correct": exact_match(text, question.answers or ()) if scored else None,
        "error": generation.error,
    }


def share_of_equals(texts: tuple[str, ...]) -> float:
    """The share of the later texts that equal the first one, normalised; in [0, 1].

    >>> share_of_equals(("Paris", "the Paris", "Rome"))
    0.5
    """
    first, *others = map(normalize_answer, texts)
    return others.count(first) / len(others)


def most_frequent(texts: tuple[str, ...]) -> int:
    """Index of the most frequent text, normalised; of several the first.

    >>> most_frequent(("Rome", "the Paris", "paris"))
    1
    """
    normal = [normalize_answer(text) for text in texts]
    return normal.index(Counter(normal).most_common(1)[0][0])
