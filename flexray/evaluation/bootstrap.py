"""Means over questions, with intervals: Wilson's for proportions, else by bootstrap (Efron 1979, percentile).

Where nothing is right, or everything, each resample is the same, and a bootstrap interval has no width.
"""

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
    """A mean over questions, with its 95 % interval."""

    questions: int
    mean: float
    interval: Interval


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


def estimate_mean(values: Floats, bootstrap: Bootstrap) -> Estimate | None:
    """The mean of the values that are not NaN. None: there are none.

    Values that are all 0 or 1 are a proportion, and get Wilson's interval.
    """
    return estimate_mean_of_means([values], bootstrap)


def estimate_mean_of_means(strata: Sequence[Floats], bootstrap: Bootstrap) -> Estimate | None:
    """The mean of the strata's means, each weighing the same; NaN, and strata of nothing else, are left out.

    Proportions get Wilson's interval of as many trials as have the variance of this mean if all strata are
    alike: for strata of n_1 .. n_k questions k^2 / (1/n_1 + .. + 1/n_k). If they are not, it is wider than
    it need be.
    """
    strata = [known for values in strata if len(known := values[~np.isnan(values)])]
    if not strata:
        return None
    mean = float(np.mean([values.mean() for values in strata]))
    if all(np.isin(values, (0, 1)).all() for values in strata):
        trials = len(strata) ** 2 / sum(1 / len(values) for values in strata)
        interval = wilson_interval(mean * trials, trials)
    else:
        interval = bootstrap.stratified_interval(strata)
    return Estimate(sum(map(len, strata)), mean, interval)
