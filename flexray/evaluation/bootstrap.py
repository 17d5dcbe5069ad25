"""Means over questions with bootstrap intervals (Efron 1979, percentile method)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flexray.evaluation.accuracy import wilson_interval

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]

_CELLS = 2_000_000  # counts drawn at once: bounds the memory of a bootstrap to 16 MB
_TAILS = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over questions, with 95 % intervals."""

    questions: int
    mean: float
    interval: Interval  # bootstrap over questions
    wilson: Interval | None = None  # Wilson's interval, for proportions


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How to resample. Each interval starts from the seed, so it depends on its own values only."""

    resamples: int = 2_000
    seed: int = 0

    def interval(self, values: Floats) -> Interval:
        """The 95 % interval of the mean of at least one value, the unit being one value."""
        return self.stratified_interval([values])

    def stratified_interval(self, strata: Sequence[Floats]) -> Interval:
        """The 95 % interval of the mean of the strata's means; each stratum is resampled by itself.

        Raises:
            ValueError: no strata, or one without values.
        """
        if not strata:
            raise ValueError("a mean of no values")
        random = np.random.default_rng(self.seed)
        total = np.zeros(self.resamples)
        for values in strata:
            total += self._resampled_means(values, random)
        low, high = np.quantile(total / len(strata), _TAILS)
        return float(low), float(high)

    def _resampled_means(self, values: Floats, random: np.random.Generator) -> Floats:
        """The means of resamples of the values, with replacement.

        A mean depends only on how often each distinct value is drawn, and those counts are
        multinomial. Scores have few distinct values, so this is the bootstrap itself, but its cost
        does not grow with the number of questions.
        """
        if not len(values):
            raise ValueError("a mean of no values")
        distinct, counts = np.unique(values, return_counts=True)
        at_once = max(1, _CELLS // len(distinct))
        parts = [
            random.multinomial(len(values), counts / len(values), size=min(at_once, self.resamples - start))
            @ distinct
            for start in range(0, self.resamples, at_once)
        ]
        return np.concatenate(parts) / len(values)


def estimate_mean(values: Floats, bootstrap: Bootstrap, *, proportion: bool = False) -> Estimate | None:
    """The mean of the values that are not NaN. None: there are none.

    Args:
        proportion: the values are 0 and 1, and get Wilson's interval too.
    """
    values = values[~np.isnan(values)]
    n = len(values)
    if not n:
        return None
    wilson = wilson_interval(int(values.sum()), n) if proportion else None
    return Estimate(n, float(values.mean()), bootstrap.interval(values), wilson)
