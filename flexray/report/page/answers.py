"""The answers on the page: each question with what every method said, and how often two methods differ."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from flexray.console.terminal import printable
from flexray.evaluation.answer_metrics import normalize_answer
from flexray.evaluation.metrics import Metric
from flexray.report.formatting import cut
from flexray.report.questions import Answer, AnsweredQuestion, answered_questions
from flexray.storage import redact

MAX_QUESTIONS = 100_000
"""That a page has; of later ones only those with an error, up to MAX_ERRORS."""
MAX_ERRORS = 1_000
MAX_TEXT = 2_000
"""Characters of a text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Disagreement:
    """A method held against another, on the questions that both answered."""

    answered: int
    differ: int  # predictions that are not the same, both normalised as exact match does
    scored: int  # of these
    right: int  # of those: the first method is right; the other one may be, too


class AnswerTable:
    """The questions of a run and their answers, as far as a page has them.

    Args:
        methods: whose answers they are.
        metric: what says whether an answer is right. None: exact match.
    """

    def __init__(self, methods: Sequence[str], metric: Metric | None) -> None:
        self.methods = tuple(methods)
        self._metric = metric
        self.questions: dict[str, AnsweredQuestion] = {}

    @property
    def rows(self) -> int:
        """Output rows: the answers of all questions."""
        return sum(len(question.answers) for question in self.questions.values())

    def add(self, table: pa.Table) -> None:
        """Take the rows (ROW_SCHEMA) of a shard; a method that came later is in another one."""
        for found in answered_questions(table, self._metric):
            known, failed = len(self.questions), any(answer.error for answer in found.answers)
            if found.row_id in self.questions:
                self.questions[found.row_id].answers.extend(found.answers)
            elif known < MAX_QUESTIONS or (failed and known < MAX_QUESTIONS + MAX_ERRORS):
                self.questions[found.row_id] = found

    def disagreements(self) -> list[list[Disagreement]]:
        """[methods, methods]: how each method compares with each other one."""
        shape = len(self.questions), len(self.methods)
        said, right = np.full(shape, -1), np.full(shape, -1)
        for number in range(len(self.questions)):
            for place, group, answer in self._said[number]:
                said[number, place] = group
                right[number, place] = -1 if answer.right is None else answer.right
        return [[_disagreement(said, right, one, two) for two in range(shape[1])] for one in range(shape[1])]

    def tree(self) -> dict[str, Any]:
        """All of it for the page's script, as JSON.

        `methods`, and `questions`: each [id, question, paraphrases, accepted answers or null, source,
        answers]; an answer is [index of its method, number of what it says (equal texts have the same one) or
        -1 for an error, 1 right, 0 wrong or null, prediction, backend, reason of a fallback, error, shard].
        """
        questions = [
            (
                _text(q.row_id),
                _text(q.question),
                [_text(text) for text in q.paraphrases],
                q.gold if q.gold is None else [_text(text) for text in q.gold],
                _text(redact(q.source)),
                [
                    (
                        place,
                        group,
                        None if a.right is None else int(a.right),
                        _text(a.prediction),
                        _text(a.backend),
                        _text(redact(a.fallback_reason)),
                        _text(redact(a.error)),
                        _text(a.shard_id),
                    )
                    for place, group, a in said
                ],
            )
            for q, said in zip(self.questions.values(), self._said, strict=True)
        ]
        return {"methods": list(map(_text, self.methods)), "questions": questions}

    @functools.cached_property
    def _said(self) -> list[list[tuple[int, int, Answer]]]:
        """`_by_method` of each question, once all rows are there."""
        return list(map(self._by_method, self.questions.values()))

    def _by_method(self, question: AnsweredQuestion) -> list[tuple[int, int, Answer]]:
        """Of each answer, in the order of methods, the method's index and a number of what it says: the same
        for predictions that are the same once normalised; -1 for an error."""
        groups: dict[str, int] = {}
        found = []
        for place, answer in sorted(
            ((self.methods.index(a.method), a) for a in question.answers), key=_first
        ):
            said = normalize_answer(answer.prediction)
            found.append((place, -1 if answer.error else groups.setdefault(said, len(groups)), answer))
        return found


def _first(pair: tuple[int, Answer]) -> int:
    return pair[0]


def _disagreement(said: np.ndarray, right: np.ndarray, one: int, two: int) -> Disagreement:
    both = (said[:, [one, two]] >= 0).all(axis=1)
    differ = both & (said[:, one] != said[:, two])
    scored = differ & (right[:, [one, two]] >= 0).all(axis=1)
    return Disagreement(
        answered=int(both.sum()),
        differ=int(differ.sum()),
        scored=int(scored.sum()),
        right=int((right[scored, one] == 1).sum()),
    )


def _text(text: str) -> str:
    """What the page shows of a text; most need no work."""
    text = cut(text, MAX_TEXT)
    return text if text.isprintable() else printable(text)
