"""The bootstrap over distinct values is the bootstrap over questions, and its interval covers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.evaluation.accuracy import wilson_interval
from flexray.evaluation.bootstrap import Bootstrap, estimate_mean, estimate_mean_of_means

SHARES = st.lists(st.sampled_from([0.0, 0.25, 0.4, 1.0]), min_size=1, max_size=60)


def interval_by_drawing(strata: list[np.ndarray], resamples: int = 4000) -> np.ndarray:
    """The same from the definition: draw questions with replacement, one resample at a time."""
    random = np.random.default_rng(123)
    means = [
        np.mean([values[random.integers(len(values), size=len(values))].mean() for values in strata])
        for _ in range(resamples)
    ]
    return np.quantile(means, (0.025, 0.975))


@pytest.mark.parametrize(
    "values",
    [
        np.repeat([0.0, 1.0], [60, 140]),
        np.repeat([0.0, 1 / 3, 0.5, 2 / 3, 1.0], [20, 5, 40, 10, 25]),
        np.random.default_rng(0).normal(size=300),
    ],
)
def test_the_interval_is_that_of_drawn_questions(values):
    spread = values.std() / np.sqrt(len(values))
    assert Bootstrap().interval(values) == pytest.approx(interval_by_drawing([values]), abs=spread / 4)


def test_the_interval_of_strata_is_that_of_questions_drawn_within_each():
    strata = [np.repeat([0.0, 1.0], [5, 5]), np.repeat([0.0, 1.0], [10, 90]), np.ones(7)]
    found = Bootstrap().stratified_interval(strata)
    assert found == pytest.approx(interval_by_drawing(strata), abs=0.02)


def test_95_percent_intervals_cover_the_truth_about_95_percent_of_the_time():
    random = np.random.default_rng(7)
    covered = 0
    for seed in range(400):
        low, high = Bootstrap(resamples=500, seed=seed).interval((random.random(200) < 0.3).astype(float))
        covered += low <= 0.3 <= high
    assert 0.91 <= covered / 400 <= 0.98


@given(SHARES)
def test_the_interval_lies_within_the_values(values):
    kept = np.array(values)
    low, high = Bootstrap(resamples=200).interval(kept)
    assert kept.min() - 1e-12 <= low <= high <= kept.max() + 1e-12
    if kept.min() == kept.max():
        assert (low, high) == pytest.approx((kept[0], kept[0]))


@given(SHARES)
def test_the_same_seed_gives_the_same_interval_in_any_order(values):
    bootstrap = Bootstrap(resamples=50, seed=3)
    assert bootstrap.interval(np.array(values)) == bootstrap.interval(np.array(values[::-1]))


def test_another_seed_gives_another_interval():
    values = np.random.default_rng(0).random(50)
    assert Bootstrap(seed=1).interval(values) != Bootstrap(seed=2).interval(values)


def test_more_distinct_values_than_are_drawn_at_once_make_no_difference_in_kind(monkeypatch):
    values = np.random.default_rng(0).random(100)
    whole = Bootstrap().interval(values)
    monkeypatch.setattr("flexray.evaluation.bootstrap._CELLS", 30)
    assert Bootstrap().interval(values) == pytest.approx(whole, rel=1e-12)


def test_an_estimate_leaves_out_what_does_not_apply():
    found = estimate_mean(np.array([1, np.nan, 0, 1, 1]), Bootstrap())
    assert found is not None
    assert (found.questions, found.mean) == (4, 0.75)
    assert found.interval == pytest.approx(wilson_interval(3, 4))


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_where_nothing_or_everything_is_right_the_interval_says_that_there_are_few_questions(right):
    found = estimate_mean(np.full(8, right), Bootstrap())
    assert found.interval == pytest.approx(wilson_interval(8 * right, 8))
    strata = estimate_mean_of_means([np.full(4, right), np.full(4, right)], Bootstrap())
    assert strata.interval == pytest.approx(found.interval)


def test_a_mean_of_shares_has_a_bootstrap_interval():
    values = np.array([0, 0.5, 1, 1])
    assert estimate_mean(values, Bootstrap()).interval == Bootstrap().interval(values)
    strata = [values, np.ones(3)]
    assert estimate_mean_of_means(strata, Bootstrap()).interval == Bootstrap().stratified_interval(strata)


@pytest.mark.parametrize(
    ("shares", "sizes"), [([0.02] * 12, [8] * 12), ([0.3] * 5, [10] * 5), ([0.02, 0.5, 0.9], [5, 20, 80])]
)
def test_intervals_of_strata_of_proportions_cover_the_truth_at_least_about_95_percent_of_the_time(
    shares, sizes
):
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        strata = [(random.random(n) < p).astype(float) for p, n in zip(shares, sizes, strict=True)]
        low, high = estimate_mean_of_means(strata, Bootstrap()).interval
        covered += low <= np.mean(shares) <= high
    assert covered / 300 >= 0.92


def test_of_nothing_there_is_no_estimate():
    assert estimate_mean(np.array([np.nan]), Bootstrap()) is None
    with pytest.raises(ValueError, match="no values"):
        Bootstrap().interval(np.array([]))
    with pytest.raises(ValueError, match="no values"):
        Bootstrap().stratified_interval([])
