"""What a run said: accuracy by method, some answers, the errors by kind, and what looks odd about it.

Rows are read shard by shard, and what is kept does not grow with their number.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flexray.evaluation import ScoreCounts, accuracy_by_method, sentences_note
from flexray.evaluation.answer_metrics import contains
from flexray.models.hub import has_chat_template
from flexray.report.formatting import percent
from flexray.report.run_folder import RunFolder

MAX_SHARDS = 256
"""Shards that are read; of more, so many at even distances."""
MAX_KINDS = 1_000
"""Kinds of errors, and different predictions of a method, that are counted."""
MANY_EMPTY, MANY_EQUAL, MANY_CUT = 0.05, 0.5, 0.2
"""Shares of a method's answers from which on they are pointed out."""
MAX_WRONG = 1_000
"""Wrong answers of a method that are looked at for an accepted one in them."""
FEW = 20
"""Answers of a method that say nothing about it yet."""
_FAULT = re.compile(r"^.*?, row \d+, (field .*?) \(value: ", re.DOTALL)
_NUMBER = re.compile(r"\d[\d.,]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What one method said."""

    method: str
    prediction: str
    correct: bool | None  # None: an error, or nothing to score against
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A question with the answers of all methods."""

    row_id: str
    question: str
    gold: tuple[str, ...] | None  # None: nothing to score against
    answers: tuple[Answer, ...]


@dataclass(kw_only=True, slots=True)
class ErrorKind:
    """Error rows of one reason."""

    rows: int
    example: str  # the error of the first of them


@dataclass(kw_only=True, slots=True)
class _Said:
    """Counts over a method's answered rows."""

    rows: int = 0
    finish: Counter[str] = field(default_factory=Counter)
    empty: Counter[str] = field(default_factory=Counter)  # by finish reason
    predictions: Counter[str] = field(default_factory=Counter)  # of the frequent ones
    scored: int = 0
    exact: int = 0
    wrong: int = 0  # of those, how many were looked at
    contain: int = 0  # of these, how many contain an accepted answer


@dataclass(kw_only=True, slots=True)
class AnswerNotes:
    """What `flexray show` shows of a run."""

    config: Mapping[str, Any]
    """As the run's record has it."""
    shards: int
    """That have committed rows to show."""
    shards_read: int = 0
    headline: str
    """The metric that the accuracy is of."""
    accuracy: dict[str, ScoreCounts] = field(default_factory=dict)
    """By method."""
    examples: list[Example] = field(default_factory=list)
    errors: list[ErrorKind] = field(default_factory=list)
    """The most frequent first."""
    warnings: list[str] = field(default_factory=list)


def look_at(run: RunFolder, *, examples: int = 5, only_wrong: bool = False) -> AnswerNotes:
    """Read the committed rows of a run.

    Args:
        examples: questions to keep with their answers. They are drawn by a digest of the row id, so that the
            same run shows the same ones.
        only_wrong: keep questions only that a method has answered wrongly.
    """
    shards = list(run.manifests)
    step = max(1.0, len(shards) / MAX_SHARDS)
    chosen = {shards[int(i * step)] for i in range(min(len(shards), MAX_SHARDS))}
    headline = run.headline
    notes = AnswerNotes(
        config=run.record.config, shards=len(shards), headline=headline.name, shards_read=len(chosen)
    )
    drawn: list[tuple[bytes, Example]] = []
    said: dict[str, _Said] = {}
    kinds: dict[str, ErrorKind] = {}
    for table in run.tables(chosen):
        for method, counts in accuracy_by_method([table], headline.metric).items():
            notes.accuracy[method] = notes.accuracy.get(method, ScoreCounts()) + counts
        _count(table, said)
        if headline.metric is None:
            _count_contained(table, said)
        _count_errors(table, kinds)
        drawn = heapq.nsmallest(examples, [*drawn, *_examples(table, examples, only_wrong)], _first)
    notes.accuracy = {m: notes.accuracy[m] for m in run.seen.methods if m in notes.accuracy}
    notes.examples = [example for _, example in drawn]
    notes.errors = sorted(kinds.values(), key=lambda kind: -kind.rows)
    notes.warnings += [headline.warning] * bool(headline.warning)
    for method in notes.accuracy:
        if method in said:
            notes.warnings += _odd(method, said[method], run.record.config)
    return notes


def _first(drawn: tuple[bytes, Example]) -> bytes:
    return drawn[0]


def _examples(table: pa.Table, most: int, only_wrong: bool) -> Iterable[tuple[bytes, Example]]:
    """The questions of a table with the smallest digests of their ids."""
    ids = table["row_id"]
    if only_wrong:
        ids = ids.filter(pc.fill_null(pc.invert(table["correct"]), False))
    digests = {
        row_id: blake2b(row_id.encode(), digest_size=8).digest() for row_id in ids.unique().to_pylist()
    }
    for row_id in heapq.nsmallest(most, digests, digests.__getitem__):
        rows = table.filter(pc.equal(table["row_id"], row_id)).to_pylist()
        gold = rows[0]["answers"]
        answers = tuple(
            Answer(method=r["method"], prediction=r["prediction"], correct=r["correct"], error=r["error"])
            for r in rows
        )
        yield (
            digests[row_id],
            Example(
                row_id=row_id,
                question=rows[0]["question"],
                gold=None if gold is None else tuple(gold),
                answers=answers,
            ),
        )


def _count(table: pa.Table, said: dict[str, _Said]) -> None:
    answered = table.filter(pc.equal(table["error"], ""))
    counts = answered.group_by(["method", "prediction", "finish_reason"]).aggregate([([], "count_all")])
    for row in counts.to_pylist():
        of_method = said.setdefault(row["method"], _Said())
        rows = row["count_all"]
        of_method.rows += rows
        of_method.finish[row["finish_reason"]] += rows
        if row["prediction"].strip():
            of_method.predictions[row["prediction"]] += rows
        else:
            of_method.empty[row["finish_reason"]] += rows
    for of_method in said.values():
        if len(of_method.predictions) > 2 * MAX_KINDS:
            of_method.predictions = Counter(dict(of_method.predictions.most_common(MAX_KINDS)))


def _count_contained(table: pa.Table, said: dict[str, _Said]) -> None:
    for method, of_method in said.items():
        scored = table.filter(pc.and_(pc.equal(table["method"], method), pc.is_valid(table["correct"])))
        wrong = scored.filter(pc.invert(scored["correct"])).select(["prediction", "answers"])
        of_method.scored += scored.num_rows
        of_method.exact += scored.num_rows - wrong.num_rows
        rows = wrong.slice(0, MAX_WRONG - of_method.wrong).to_pylist()
        of_method.wrong += len(rows)
        of_method.contain += sum(contains(row["prediction"], row["answers"]) for row in rows)


def _count_errors(table: pa.Table, kinds: dict[str, ErrorKind]) -> None:
    counts = table["error"].filter(pc.not_equal(table["error"], "")).value_counts().to_pylist()
    for error, rows in ((item["values"], item["counts"]) for item in counts):
        kind = kind_of(error)
        if kind in kinds:
            kinds[kind].rows += rows
        elif len(kinds) < MAX_KINDS:
            kinds[kind] = ErrorKind(rows=rows, example=error)


def kind_of(error: str) -> str:
    """The reason of a row's error, without what only this row has.

    >>> kind_of("a.jsonl, row 7, field 'q': element 2 of 3 is empty (value: ''). Correct it.")
    "field 'q': element # of # is empty"
    """
    fault = _FAULT.match(error)
    return _NUMBER.sub("#", fault[1] if fault else error)


def _odd(method: str, said: _Said, config: Mapping[str, Any]) -> Iterable[str]:
    """What is odd about a method's answers, with its likely cause and what to do."""
    if said.rows < FEW:
        return
    generation = config["generation"]
    empty = said.empty.total()
    if empty >= MANY_EMPTY * said.rows:
        ends, _ = said.empty.most_common(1)[0]
        yield (
            f"{method}: {percent(empty / said.rows)} of the answers are empty ({empty:,} of {said.rows:,}). "
            f"{_why_empty(ends, config)}"
        )
    if said.predictions:
        text, rows = said.predictions.most_common(1)[0]
        if rows >= MANY_EQUAL * said.rows:
            yield (
                f"{method}: {percent(rows / said.rows)} of the answers are the same, {text[:80]!r}. "
                "Look at a prompt with `flexray explain`: do all few-shots have that answer?"
            )
    if said.scored >= FEW and said.wrong:
        exact = said.exact / said.scored
        if note := sentences_note(exact, exact + (1 - exact) * said.contain / said.wrong):
            yield f"{method}: {note}"
    cut = said.finish["length"]
    if cut >= MANY_CUT * said.rows:
        yield (
            f"{method}: {percent(cut / said.rows)} of the answers were cut off at generation.max_new_tokens "
            f"({generation['max_new_tokens']}). Raise it, or show answers of the wanted length in few-shots."
        )


def _why_empty(ends: str, config: Mapping[str, Any]) -> str:
    chat = config["prompt"].get("chat")
    if not chat and has_chat_template(config["model"]["path"]):
        return (
            "The model has a chat template, so it was trained on conversations, but prompt.chat is off: try "
            "--set prompt.chat=true."
        )
    if ends == "newline":
        return "The model begins with a line break, at which generation.stop_at_newline ends the answer: " + (
            "set it to false." if chat else "set it to false, or give few-shots that show the form."
        )
    if ends == "eos":
        return "The model ends at once (EOS): give few-shots, or change prompt.answer_prefix."
    return "Look at a prompt and its first tokens with `flexray explain`."
