"""A shard's answers as output rows: scored, and each with how it was computed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from flexray.config import MethodConfig
from flexray.evaluation.answer_metrics import exact_match, normalize_answer
from flexray.evaluation.metrics import find_metric
from flexray.methods import Answers, answers_of
from flexray.sink.records.rows import LOGPROBS, ROW_SCHEMA

if TYPE_CHECKING:  # the pipeline brings Ray and torch, which evaluating output does not need
    from flexray.pipeline.shards import AnsweredShard

_CHOSEN = (
    *("token_ids", "finish_reason", "backend_requested", "backend_used", "fallback_reason", "attempts"),
    *("error", "candidate_scores"),
)
"""The columns that an output row has from the answer that counts."""
DEFAULT_MATCH = "exact_match"
_SCORED = ("confidences", "prediction", "paraphrase_predictions", "samples", "subsets", "correct")


def to_table(shard: AnsweredShard, methods: tuple[str, ...]) -> pa.Table:
    """ROW_SCHEMA: for each method in turn, a row for each question in order."""
    asked = pa.concat_tables([shard.questions] * len(methods))
    num_questions = shard.questions.num_rows
    rules = [(answers_of(name), match_of(name), breaks_ties(name)) for name in methods]
    kinds = [rule for rule in rules for _ in range(num_questions)]
    said = shard.answers.flatten()
    texts, errors, drawn = (said.field(name).to_pylist() for name in ("text", "error", "subset"))
    edges = list(accumulate(shard.answers.value_lengths().to_pylist(), initial=0))
    rows, places = [], []
    scored = shard.questions.select(["paraphrases", "answers", "confidences"]).to_pylist() * len(methods)
    chosen_tokens = pc.struct_field(said, ("logprobs", "chosen"))
    for question, (kind, match, by_sum), (start, end) in zip(scored, kinds, pairwise(edges), strict=True):
        logprobs = None
        if by_sum:
            logprobs = [math.fsum(values or ()) for values in chosen_tokens[start:end].to_pylist()]
        chosen, row = _score(question, kind, match, texts[start:end], logprobs, failed=bool(errors[start]))
        row["subsets"] = drawn[start:end] if any(drawn[start:end]) else None
        places.append(start + chosen)
        rows.append(row)
    counted = said.take(pa.array(places, pa.int64()))
    columns = (
        {name: asked[name] for name in asked.column_names}
        | {name: counted.field(name) for name in _CHOSEN}
        | _logprobs(counted)
        | {name: pa.array([row[name] for row in rows], ROW_SCHEMA.field(name).type) for name in _SCORED}
        | {
            "shard_id": pa.repeat(shard.spec.shard_id, len(rows)),
            "method": pa.array([name for name in methods for _ in range(num_questions)], pa.string()),
            "prompt_tokens": pa.array(shard.prompt_tokens * len(methods), pa.int32()),
        }
    )
    return pa.table(columns, schema=ROW_SCHEMA)


def _logprobs(answers: pa.StructArray) -> dict[str, pa.Array]:
    """The columns LOGPROBS of the answers that count."""
    each, ids, top = (
        pc.struct_field(answers, ("logprobs", name)) for name in ("chosen", "top_token_ids", "top")
    )
    sums = [None if values is None else math.fsum(values) for values in each.to_pylist()]
    counts = each.value_lengths().to_pylist()
    means = [total / count if count else None for total, count in zip(sums, counts, strict=True)]
    columns = (each, pa.array(sums, pa.float64()), pa.array(means, pa.float64()))
    return dict(zip(LOGPROBS, (*columns, ids, top), strict=True))


def _score(
    question: dict[str, Any],
    kind: Answers,
    match: str,
    texts: list[str],
    logprobs: list[float] | None,
    *,
    failed: bool,
) -> tuple[int, dict[str, Any]]:
    """Which of the answers to a question counts, and the columns _SCORED. Of several answers, one for each
    paraphrase or sample, the most frequent counts."""
    confidences, answers = question["confidences"], question["answers"]
    several: dict[str, list[str]] = {"paraphrase_predictions": [], "samples": []}
    group = 1
    if failed:
        pass
    elif kind == "paraphrases":
        several["paraphrase_predictions"] = texts
    elif kind == "samples":
        several["samples"] = texts
    elif kind == "rated":
        group = len(texts) // len(question["paraphrases"])  # the greedy answer, and those drawn
        confidences = [agreement(texts[i : i + group], match) for i in range(0, len(texts), group)]
        several["samples"] = [text for i, text in enumerate(texts) if i % group]
        texts = several["paraphrase_predictions"] = texts[::group]
    chosen = most_frequent(texts, None if failed else logprobs)
    prediction = texts[chosen]
    correct = None if failed or answers is None else exact_match(prediction, answers)
    columns = {"confidences": confidences, "prediction": prediction, "correct": correct, **several}
    return chosen * group, columns


def breaks_ties(method: str) -> bool:
    """Whether log-probabilities decide between answers that are equally frequent, by the `method` of rows."""
    return "ties logprob" in method.split("/")


def match_of(method: str) -> str:
    """The metric by which a method compares what it has drawn, by the `method` of its rows."""
    named = [part.partition(" ")[2] for part in method.split("/") if part.startswith("match ")]
    return named[0] if named else DEFAULT_MATCH


def check_match(methods: Iterable[MethodConfig]) -> None:
    """Raise ConfigError if a method compares by a metric that is not registered."""
    for method in methods:
        find_metric(method.match)


def agreement(texts: Sequence[str], match: str = DEFAULT_MATCH) -> float:
    """How far the later texts agree with the first one: the mean of a metric, in [0, 1]. Where the metric
    does not apply they do not.

    >>> agreement(("Paris", "the Paris", "Rome"))
    0.5
    """
    metric, (first, *others) = find_metric(match), texts
    found = [metric(text, (first,)) for text in others]
    return sum(value for value in found if not math.isnan(value)) / len(found)


def most_frequent(texts: Sequence[str], logprobs: Sequence[float] | None = None) -> int:
    """Index of the most frequent text, normalised; of several the one whose `logprobs` have the highest sum,
    or without these the first.

    >>> most_frequent(("Rome", "the Paris", "paris"))
    1
    >>> most_frequent(("Rome", "Paris"), (-2.0, -1.0))
    1
    """
    normal = [normalize_answer(text) for text in texts]
    counts = Counter(normal)
    highest = max(counts.values())
    most = [text for text, count in counts.items() if count == highest]
    if logprobs is None:
        return normal.index(most[0])
    sums = {
        text: math.fsum(p for p, own in zip(logprobs, normal, strict=True) if own == text) for text in most
    }
    return normal.index(max(most, key=sums.__getitem__))
