"""Two methods on the same questions: differences with bootstrap intervals, and McNemar's exact test."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flexray.errors import OutputError
from flexray.evaluation.bootstrap import Bootstrap, Interval
from flexray.evaluation.scores import MethodScores


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric's mean of a method less that of the other, over the questions that both have it for."""

    questions: int
    mean: float
    other_mean: float
    difference: float
    interval: Interval  # bootstrap over questions, both methods resampled together


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A method against another, over the questions that both answered and that are scored.

    The four counts are of the headline metric, over the questions that it applies to: right is where it is 1.
    """

    method: str
    other: str
    questions: int
    both_right: int
    only_method_right: int
    only_other_right: int
    neither_right: int
    mcnemar_p: float | None  # None: no such question in common
    differences: dict[str, Difference | None]


def compare(
    method: str, scores: MethodScores, other: str, other_scores: MethodScores, bootstrap: Bootstrap
) -> Comparison:
    """Pair the rows of two methods by row id and compare them.

    Raises:
        OutputError: the two were scored against different answers.
    """
    _, mine, others = np.intersect1d(
        scores.row_keys, other_scores.row_keys, assume_unique=True, return_indices=True
    )
    changed = np.count_nonzero(scores.answers_digests[mine] != other_scores.answers_digests[others])
    if changed:
        raise OutputError(
            f"{method} and {other}: {changed:,} of the {len(mine):,} rows they have in common have other "
            "accepted answers in one than in the other. Compare outputs of the same data."
        )
    pair = np.stack([scores.values(scores.headline)[mine], other_scores.values(scores.headline)[others]])
    right, other_right = pair[:, ~np.isnan(pair).any(axis=0)] == 1
    neither, only_other, only_method, both = np.bincount(2 * right + other_right, minlength=4).tolist()
    return Comparison(
        method=method,
        other=other,
        questions=len(mine),
        both_right=both,
        only_method_right=only_method,
        only_other_right=only_other,
        neither_right=neither,
        mcnemar_p=mcnemar_p(only_method, only_other) if len(right) else None,
        differences={
            metric: _difference(
                np.stack([scores.values(metric)[mine], other_scores.values(metric)[others]]), bootstrap
            )
            for metric in scores.metrics
        },
    )


def mcnemar_p(only_a: int, only_b: int) -> float:
    """The exact two-sided p-value of McNemar's test (McNemar 1947, by the binomial distribution).

    If both methods are equally good, each question that only one of them has right is either one's
    with probability 1/2. Twice the smaller tail, at most 1. Values below 1e-308 come out as 0.

    Raises:
        ValueError: a negative count.
    """
    fewer, n = min(only_a, only_b), only_a + only_b
    if fewer < 0:
        raise ValueError(f"counts {only_a} and {only_b}")
    if only_a == only_b:
        return 1.0
    largest = math.lgamma(n + 1) - math.lgamma(fewer + 1) - math.lgamma(n - fewer + 1) - n * math.log(2)
    # P(X = k - 1) / P(X = k) = k / (n - k + 1), below 1 here and falling
    tail, term = 0.0, 1.0
    for k in range(fewer, -1, -1):
        tail += term
        term *= k / (n - k + 1)
        if term < tail * 1e-17:
            break
    return min(1.0, 2 * math.exp(largest) * tail)


def _difference(pairs: np.ndarray, bootstrap: Bootstrap) -> Difference | None:
    pairs = pairs[:, ~np.isnan(pairs).any(axis=0)]
    if not pairs.shape[1]:
        return None
    each = pairs[0] - pairs[1]
    mean, other_mean = (float(value) for value in pairs.mean(axis=1))
    return Difference(len(each), mean, other_mean, float(each.mean()), bootstrap.interval(each))
