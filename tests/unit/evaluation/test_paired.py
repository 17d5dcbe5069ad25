"""Methods are paired by row, and compared on the rows that both answered."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.errors import OutputError
from flexray.evaluation.answer_metrics import token_f1
from flexray.evaluation.bootstrap import Bootstrap
from flexray.evaluation.paired import Comparison, compare, mcnemar_p
from tests.unit.evaluation.builders import answered, failed, scores_of

FEW = Bootstrap(resamples=100)
PREDICTION = st.none() | st.sampled_from(["Berlin", "Berlin wall", "Rome"])  # None: an error row


def compared(rows: list[dict], bootstrap: Bootstrap = FEW) -> Comparison:
    found = scores_of(rows)
    return compare("a", found["a"], "b", found["b"], bootstrap)


def mcnemar_by_enumeration(only_a: int, only_b: int) -> float:
    """Sum of the probabilities of all outcomes that are as far from even, or farther."""
    n, far = only_a + only_b, abs(only_a - only_b)
    return sum(math.comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= far) / 2**n


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(0, 0, 1), (3, 3, 1), (0, 1, 1), (0, 5, 2 / 32), (1, 9, 22 / 1024), (9, 1, 22 / 1024)],
)
def test_mcnemar_of_known_counts(only_a, only_b, p):
    assert mcnemar_p(only_a, only_b) == pytest.approx(p)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_sum_over_all_outcomes(only_a, only_b):
    assert mcnemar_p(only_a, only_b) == pytest.approx(mcnemar_by_enumeration(only_a, only_b), rel=1e-9)


def test_mcnemar_of_huge_counts_is_near_the_normal_approximation():
    z = 3_000 / math.sqrt(2_000_000)
    assert mcnemar_p(998_500, 1_001_500) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.01)
    assert mcnemar_p(0, 1_000_000) == 0


def test_mcnemar_of_negative_counts_is_refused():
    with pytest.raises(ValueError, match="-1"):
        mcnemar_p(-1, 3)


def test_two_methods_are_compared_on_the_questions_that_both_answered():
    found = compared(
        [answered("a", n, p) for n, p in enumerate(["Berlin", "Berlin", "Berlin", "Berlin wall", "Rome"])]
        + [answered("b", n, p) for n, p in enumerate(["Berlin", "Rome", "Rome", "Berlin", "Rome"])]
    )
    assert found.questions == 5
    counts = (found.both_right, found.only_method_right, found.only_other_right, found.neither_right)
    assert counts == (1, 2, 1, 1)
    assert found.mcnemar_p == 1
    exact, f1 = found.differences["exact_match"], found.differences["f1"]
    assert (exact.mean, exact.other_mean) == (pytest.approx(0.6), pytest.approx(0.4))
    assert exact.difference == pytest.approx(0.2)
    assert f1.difference == pytest.approx((2 - 1 / 3) / 5)


@given(st.lists(st.tuples(PREDICTION, PREDICTION), min_size=1, max_size=12), st.randoms())
def test_counts_and_differences_are_those_of_plain_loops(pairs, random):
    rows = []
    for number, predictions in enumerate(pairs):
        for method, prediction in zip("ab", predictions, strict=True):
            rows.append(
                failed(method, number) if prediction is None else answered(method, number, prediction)
            )
    random.shuffle(rows)
    found = compared(rows)
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    outcomes = [(a == "Berlin", b == "Berlin") for a, b in both]
    assert found.questions == len(both)
    assert found.both_right == outcomes.count((True, True))
    assert found.only_method_right == outcomes.count((True, False))
    assert found.only_other_right == outcomes.count((False, True))
    assert found.neither_right == outcomes.count((False, False))
    if both:
        f1 = found.differences["f1"]
        each = [token_f1(a, ["Berlin"]) - token_f1(b, ["Berlin"]) for a, b in both]
        assert f1.difference == pytest.approx(np.mean(each))
        assert min(each) - 1e-9 <= f1.interval[0] <= f1.interval[1] <= max(each) + 1e-9
    else:
        assert found.mcnemar_p is None
        assert set(found.differences.values()) == {None}


def test_methods_that_err_on_the_same_questions_have_a_narrow_interval():
    random = np.random.default_rng(0)
    rows = []
    for number, hard in enumerate(random.random(400) < 0.5):
        shared = "Rome" if hard else "Berlin"
        rows += [answered("a", number, shared), answered("b", number, shared if number % 40 else "Rome")]
    found = compared(rows, Bootstrap())
    low, high = found.differences["exact_match"].interval
    assert high - low < 0.03  # unpaired it would be 0.14


def test_a_method_against_itself_has_no_difference():
    found = compared([answered(m, n, "Berlin" if n % 3 else "Rome") for m in "ab" for n in range(30)])
    assert found.differences["exact_match"].interval == (0, 0)
    assert found.mcnemar_p == 1


def test_what_was_scored_against_other_answers_is_not_compared():
    mine = scores_of([answered("a", n, "Berlin") for n in range(3)])
    theirs = scores_of([answered("b", n, "Berlin", answers=["Bonn"] if n else ["Berlin"]) for n in range(3)])
    with pytest.raises(OutputError, match=r"x and y: 2 of the 3 rows .* other accepted answers"):
        compare("x", mine["a"], "y", theirs["b"], FEW)


def test_a_metric_that_applies_to_no_common_question_has_no_difference():
    rows = [answered(m, n, "New York", answers=["New York"]) for m in "ab" for n in range(3)]
    assert compared(rows).differences["first_word_match"] is None
