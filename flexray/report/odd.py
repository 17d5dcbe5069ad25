"""What looks odd about a method's answers, with its likely cause and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flexray.evaluation import sentences_note
from flexray.evaluation.answer_metrics import contains
from flexray.models.hub import has_chat_template
from flexray.report.formatting import percent

MANY_EMPTY, MANY_EQUAL, MANY_CUT = 0.05, 0.5, 0.2
"""Shares of a method's answers from which on they are pointed out."""
MAX_PREDICTIONS = 1_000
"""Different predictions that are counted."""
MAX_WRONG = 1_000
"""Wrong answers that are looked at for an accepted one in them."""
FEW = 20
"""Answers that say nothing about a method yet."""


@dataclass(kw_only=True, slots=True)
class Said:
    """Counts over a method's answered rows."""

    rows: int = 0
    finish: Counter[str] = field(default_factory=Counter)
    empty: Counter[str] = field(default_factory=Counter)  # by finish reason
    predictions: Counter[str] = field(default_factory=Counter)  # of the frequent ones
    scored: int = 0
    exact: int = 0
    wrong: int = 0  # of those, how many were looked at
    contain: int = 0  # of these, how many contain an accepted answer

    def add(self, prediction: str, finish_reason: str, rows: int) -> None:
        """Count answered rows that say the same."""
        self.rows += rows
        self.finish[finish_reason] += rows
        if prediction.strip():
            self.predictions[prediction] += rows
        else:
            self.empty[finish_reason] += rows
        if len(self.predictions) > 2 * MAX_PREDICTIONS:
            self.predictions = Counter(dict(self.predictions.most_common(MAX_PREDICTIONS)))

    def add_scored(self, answered: pa.Table) -> None:
        """Look at answered rows (ROW_SCHEMA) of a run scored by exact match, for answers in sentences."""
        scored = answered.filter(pc.is_valid(answered["correct"]))
        wrong = scored.filter(pc.invert(scored["correct"])).select(["prediction", "answers"])
        self.scored += scored.num_rows
        self.exact += scored.num_rows - wrong.num_rows
        looked_at = wrong.slice(0, MAX_WRONG - self.wrong).to_pylist()
        self.wrong += len(looked_at)
        self.contain += sum(contains(row["prediction"], row["answers"]) for row in looked_at)

    def warnings(self, method: str, config: Mapping[str, Any]) -> Iterator[str]:
        """A line for each oddity. `config`: as the run's record has it."""
        if self.rows < FEW:
            return
        generation, empty = config.get("generation", {}), self.empty.total()
        if empty >= MANY_EMPTY * self.rows:
            ends, _ = self.empty.most_common(1)[0]
            yield (
                f"{method}: {percent(empty / self.rows)} of the answers are empty ({empty:,} of "
                f"{self.rows:,}). {_why_empty(ends, config)}"
            )
        if self.predictions:
            text, rows = self.predictions.most_common(1)[0]
            if rows >= MANY_EQUAL * self.rows:
                yield (
                    f"{method}: {percent(rows / self.rows)} of the answers are the same, {text[:80]!r}. "
                    "Look at a prompt with `flexray explain`: do all few-shots have that answer?"
                )
        if self.scored >= FEW and self.wrong:
            exact = self.exact / self.scored
            if note := sentences_note(exact, exact + (1 - exact) * self.contain / self.wrong):
                yield f"{method}: {note}"
        cut = self.finish["length"]
        if cut >= MANY_CUT * self.rows:
            yield (
                f"{method}: {percent(cut / self.rows)} of the answers were cut off at "
                f"generation.max_new_tokens ({generation.get('max_new_tokens')}). Raise it, or show answers "
                "of the wanted length in few-shots."
            )


def _why_empty(ends: str, config: Mapping[str, Any]) -> str:
    chat = config.get("prompt", {}).get("chat")
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
