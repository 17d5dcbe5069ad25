"""The answers on the page: each question with what every method said, and how often two methods differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import permutations
from typing import Any

import pyarrow as pa

from flexray.console.terminal import printable
from flexray.evaluation.answer_metrics import normalize_answer
from flexray.evaluation.metrics import Metric
from flexray.report.formatting import cut
from flexray.report.questions import answered_questions
from flexray.storage import redact

MAX_QUESTIONS = 100_000
"""That a page has; of later ones only those with an error, up to MAX_ERRORS."""
MAX_ERRORS = 1_000
MAX_TEXT = 2_000
"""Characters of a text."""
REDACTED = ("source_file", "fallback_reason", "error")


@dataclass(slots=True)
class Disagreement:
    """A method held against another, on the questions that both answered."""

    answered: int = 0
    differ: int = 0  # predictions that are not the same, both normalised as exact match does
    scored: int = 0  # of these
    right: int = 0  # of those: the first method is right; the other one may be, too


class AnswerTable:
    """The questions of a run and their answers, as far as a page has them.

    Args:
        methods: whose answers they are.
        metric: what says whether an answer is right. None: exact match.
    """

    def __init__(self, methods: Sequence[str], metric: Metric | None) -> None:
        self.methods = [_text(method) for method in methods]
        self._metric = metric
        self.questions: dict[str, dict[str, Any]] = {}

    @property
    def rows(self) -> int:
        """Output rows: the answers of all questions."""
        return sum(len(question["said"]) for question in self.questions.values())

    def add(self, table: pa.Table) -> None:
        """Take the rows (ROW_SCHEMA) of a shard; a method that came later is in another one."""
        for found in answered_questions(table, self._metric):
            for answer in found["said"]:
                said = normalize_answer(answer["prediction"]).encode()
                answer["normalized"] = blake2b(said, digest_size=8).hexdigest()
            row_id, known = found["row_id"], len(self.questions)
            failed = any(answer["error"] for answer in found["said"])
            if row_id in self.questions:
                self.questions[row_id]["said"] += _shown(found)["said"]
            elif known < MAX_QUESTIONS or (failed and known < MAX_QUESTIONS + MAX_ERRORS):
                self.questions[row_id] = _shown(found)

    def disagreements(self) -> list[list[Disagreement]]:
        """[methods, methods]: how each method compares with each other one."""
        place = {method: number for number, method in enumerate(self.methods)}
        cells = [[Disagreement() for _ in place] for _ in place]
        for question in self.questions.values():
            for one, two in permutations((a for a in question["said"] if not a["error"]), 2):
                cell = cells[place[one["method"]]][place[two["method"]]]
                cell.answered += 1
                if one["normalized"] == two["normalized"]:
                    continue
                cell.differ += 1
                if one["right"] is not None and two["right"] is not None:
                    cell.scored += 1
                    cell.right += one["right"]
        return cells

    def tree(self) -> dict[str, Any]:
        """All of it for the page's script: `methods`, and `questions` as `answered_questions` has them, the
        answers in the order of methods. `normalized` is a digest, the same for answers that say the same."""
        for question in self.questions.values():
            question["said"].sort(key=lambda answer: self.methods.index(answer["method"]))
        return {"methods": self.methods, "questions": list(self.questions.values())}


def _shown(value: Any, name: str = "") -> Any:
    """A tree with its texts as the page shows them."""
    if isinstance(value, dict):
        return {key: _shown(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shown(inner) for inner in value]
    if isinstance(value, str):
        return _text(redact(value) if name in REDACTED else value)
    return value


def _text(text: str) -> str:
    """What the page shows of a text; most need no work."""
    text = cut(text, MAX_TEXT)
    return text if text.isprintable() else printable(text)
