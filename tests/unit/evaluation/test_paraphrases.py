"""Paraphrases answered alone: mean, oracle, consistency and places, question by question."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.evaluation.answer_metrics import exact_match, normalize_answer
from flexray.evaluation.bootstrap import Bootstrap
from flexray.evaluation.paraphrases import ParaphraseSummary, ParaphraseTally, PositionAccuracy

FEW = Bootstrap(resamples=50)
QUESTION = st.tuples(
    st.lists(st.sampled_from(["Rome", "rome.", "Paris", "", "the"]), min_size=1, max_size=5),
    st.none() | st.lists(st.sampled_from(["Rome", "Paris"]), max_size=2),
)


def summary(*questions: tuple[list[str], list[str] | None]) -> ParaphraseSummary | None:
    tally = ParaphraseTally(exact_match)
    for predictions, answers in questions:
        tally.add(predictions, answers)
    return tally.summary(FEW)


def test_paraphrases_are_counted_over_questions_with_answers_and_pairs_over_all():
    found = summary(
        (["Rome", "rome.", "Paris", "Milan"], ["Rome"]),  # 2 of 4 right; 1 of 6 pairs agrees
        (["Paris", "the Paris"], ["Rome"]),  # none right; all agree
        (["Rome"], ["Rome", "Roma"]),  # all right; no pair
        (["a", "b"], None),  # not scored; no pair agrees
    )
    assert found.paraphrases == 9
    assert (found.accuracy.questions, found.accuracy.mean) == (3, 0.5)
    assert found.any_right.mean == pytest.approx(2 / 3)
    assert found.every_right.mean == pytest.approx(1 / 3)
    assert found.consistency.questions == 3
    assert found.consistency.mean == pytest.approx((1 / 6 + 1 + 0) / 3)
    assert found.positions[0] == PositionAccuracy(1, 3, 2 / 3)
    assert found.positions[1] == PositionAccuracy(2, 2, 1 / 2)


def test_a_place_that_few_questions_have_is_neither_best_nor_worst():
    many = [(["Paris", "Rome"], ["Rome"])] * 3
    found = summary(*many, (["Rome", "Rome", "Rome", "Paris"], ["Rome"]))
    assert found.best == PositionAccuracy(2, 4, 1.0)
    assert found.worst == PositionAccuracy(1, 4, 0.25)
    assert [position.accuracy for position in found.positions] == [0.25, 1, 1, 0]


def test_without_answers_only_consistency_is_known():
    found = summary((["Rome", "rome"], None))
    assert found.consistency.mean == 1
    assert found.accuracy is found.any_right is found.every_right is found.best is found.worst is None
    assert found.positions == ()


def test_without_paraphrases_there_is_no_summary():
    assert summary() is None
    assert summary(([], ["Rome"])) is None


@given(st.lists(QUESTION, min_size=1, max_size=6))
def test_means_are_those_of_plain_loops(questions):
    found = summary(*questions)
    rights = [[exact_match(p, answers) for p in texts] for texts, answers in questions if answers is not None]
    agreements = [
        np.mean([normalize_answer(a) == normalize_answer(b) for a, b in combinations(texts, 2)])
        for texts, _ in questions
        if len(texts) > 1
    ]
    for estimate, values in (
        (found.accuracy, [np.mean(right) for right in rights]),
        (found.any_right, [any(right) for right in rights]),
        (found.every_right, [all(right) for right in rights]),
        (found.consistency, agreements),
    ):
        if values:
            assert (estimate.questions, estimate.mean) == (len(values), pytest.approx(np.mean(values)))
        else:
            assert estimate is None
    if rights:
        assert found.every_right.mean <= found.accuracy.mean + 1e-12
        assert found.accuracy.mean <= found.any_right.mean + 1e-12
