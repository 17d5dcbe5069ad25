"""What each paraphrase alone was answered (method `per_prompt`): accuracy, best, worst, consistency."""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flexray.evaluation.answer_metrics import normalize_answer
from flexray.evaluation.bootstrap import Bootstrap, Estimate, estimate_mean
from flexray.evaluation.metrics import Metric


@dataclass(frozen=True, slots=True)
class PositionAccuracy:
    """The headline metric of the paraphrases at one position of their questions' lists."""

    position: int  # counts from 1
    questions: int
    accuracy: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ParaphraseSummary:
    """Paraphrases answered alone, by the headline metric: right is where it is 1. The unit of every interval
    is the question. Questions that the metric does not apply to are left out."""

    paraphrases: int
    accuracy: Estimate | None
    """Mean over a question's paraphrases, then over scored questions."""
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
    """Takes the questions one by one; keeps three numbers of each (18 bytes), and no text."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._paraphrases = 0
        self._means = array("d")  # of the metric, a question each
        self._any_right = array("b")
        self._every_right = array("b")
        self._consistency = array("d")
        self._asked_at: Counter[int] = Counter()  # by position
        self._total_at: defaultdict[int, float] = defaultdict(float)  # sums of the metric

    def add(self, predictions: Sequence[str], answers: Sequence[str] | None) -> None:
        """Add a question: the prediction for each paraphrase, and what is right (None: not scored)."""
        found = [normalize_answer(prediction) for prediction in predictions]
        self._paraphrases += len(found)
        if len(found) > 1:
            self._consistency.append(_agreement(found))
        if answers is None or not found:
            return
        values = [float(self._metric(prediction, answers)) for prediction in predictions]
        if any(map(math.isnan, values)):
            return
        self._means.append(sum(values) / len(values))
        self._any_right.append(1.0 in values)
        self._every_right.append(min(values) == 1)
        for position, value in enumerate(values, start=1):
            self._asked_at[position] += 1
            self._total_at[position] += value

    def summary(self, bootstrap: Bootstrap) -> ParaphraseSummary | None:
        """What was found. None: there was no paraphrase."""
        if not self._paraphrases:
            return None
        means, any_right, every_right, consistency = (
            np.array(kept, dtype=float)
            for kept in (self._means, self._any_right, self._every_right, self._consistency)
        )
        positions = tuple(
            PositionAccuracy(position, asked, self._total_at[position] / asked)
            for position, asked in sorted(self._asked_at.items())
        )
        # a position that few questions have is best or worst by chance
        common = [position for position in positions if 2 * position.questions >= len(means)]
        return ParaphraseSummary(
            paraphrases=self._paraphrases,
            accuracy=estimate_mean(means, bootstrap),
            any_right=estimate_mean(any_right, bootstrap),
            every_right=estimate_mean(every_right, bootstrap),
            consistency=estimate_mean(consistency, bootstrap),
            best=max(common, key=lambda position: position.accuracy, default=None),
            worst=min(common, key=lambda position: position.accuracy, default=None),
            positions=positions,
        )


def _agreement(found: Sequence[str]) -> float:
    """Share of the pairs that are equal, from the sizes of the groups of equal ones."""
    pairs = len(found) * (len(found) - 1)
    return sum(size * (size - 1) for size in Counter(found).values()) / pairs
