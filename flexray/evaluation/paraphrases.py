"""What each paraphrase alone was answered (method `per_prompt`): accuracy, best, worst, consistency."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flexray.evaluation.answer_metrics import normalize_answer
from flexray.evaluation.bootstrap import Bootstrap, Estimate, estimate_mean


@dataclass(frozen=True, slots=True)
class PositionAccuracy:
    """Exact match of the paraphrases at one position of their questions' lists."""

    position: int  # counts from 1
    questions: int
    accuracy: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ParaphraseSummary:
    """Paraphrases answered alone; the unit of every interval is the question."""

    paraphrases: int
    accuracy: Estimate | None
    """Share of a question's paraphrases that are right, mean over scored questions."""
    any_right: Estimate | None
    """Share of scored questions with any paraphrase right: an oracle that picks the best each time."""
    every_right: Estimate | None
    """Share of scored questions with all paraphrases right."""
    consistency: Estimate | None
    """Share of pairs of a question's paraphrases with the same normalised prediction, mean over all
    answered questions with two or more, scored or not (as in ParaRel, Elazar et al. 2021)."""
    best: PositionAccuracy | None
    """The best position of those that at least half of the scored questions have, chosen afterwards."""
    worst: PositionAccuracy | None
    positions: tuple[PositionAccuracy, ...]


class ParaphraseTally:
    """Takes the questions one by one; keeps two numbers of each (16 bytes), and no text."""

    def __init__(self) -> None:
        self._paraphrases = 0
        self._right_share = array("d")
        self._consistency = array("d")
        self._asked_at: Counter[int] = Counter()  # by position
        self._right_at: Counter[int] = Counter()

    def add(self, predictions: Sequence[str], answers: Sequence[str] | None) -> None:
        """Add a question: the prediction for each paraphrase, and what is right (None: not scored)."""
        found = [normalize_answer(prediction) for prediction in predictions]
        self._paraphrases += len(found)
        if len(found) > 1:
            self._consistency.append(_agreement(found))
        if answers is not None and found:
            wanted = {normalize_answer(answer) for answer in answers}
            right = [prediction in wanted for prediction in found]
            self._right_share.append(sum(right) / len(right))
            self._asked_at.update(range(1, len(right) + 1))
            self._right_at.update(position for position, is_right in enumerate(right, start=1) if is_right)

    def summary(self, bootstrap: Bootstrap) -> ParaphraseSummary | None:
        """What was found. None: there was no paraphrase."""
        if not self._paraphrases:
            return None
        share, consistency = (np.array(kept) for kept in (self._right_share, self._consistency))
        positions = tuple(
            PositionAccuracy(position, asked, self._right_at[position] / asked)
            for position, asked in sorted(self._asked_at.items())
        )
        # a position that few questions have is best or worst by chance
        common = [position for position in positions if 2 * position.questions >= len(share)]
        return ParaphraseSummary(
            paraphrases=self._paraphrases,
            accuracy=estimate_mean(share, bootstrap),
            any_right=estimate_mean((share > 0).astype(float), bootstrap),
            every_right=estimate_mean((share == 1).astype(float), bootstrap),
            consistency=estimate_mean(consistency, bootstrap),
            best=max(common, key=lambda position: position.accuracy, default=None),
            worst=min(common, key=lambda position: position.accuracy, default=None),
            positions=positions,
        )


def _agreement(found: Sequence[str]) -> float:
    """Share of the pairs that are equal, from the sizes of the groups of equal ones."""
    pairs = len(found) * (len(found) - 1)
    return sum(size * (size - 1) for size in Counter(found).values()) / pairs
