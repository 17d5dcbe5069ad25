"""F1 compares multisets of normalised tokens; the first word counts only if one word is asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.evaluation.answer_metrics import exact_match, first_word_match, token_f1, tokens

TEXTS = st.lists(st.sampled_from(["red", "Blue", "green.", "the", "?", "red-blue"]), max_size=6).map(" ".join)


def f1_by_loops(prediction: str, answers: list[str]) -> float:
    """The same from the definition: strike each common token out once, then precision and recall."""
    best = 0.0
    for answer in answers:
        left, common = list(tokens(answer)), 0
        for token in tokens(prediction):
            if token in left:
                left.remove(token)
                common += 1
        if not tokens(answer) or not tokens(prediction):
            best = max(best, float(tokens(answer) == tokens(prediction)))
        elif common:
            precision, recall = common / len(tokens(prediction)), common / len(tokens(answer))
            best = max(best, 2 * precision * recall / (precision + recall))
    return best


@pytest.mark.parametrize(
    ("prediction", "answers", "f1"),
    [
        ("the Eiffel Tower", ["Eiffel tower"], 1),
        ("Jamaican English", ["Jamaican Creole English Language", "Patois"], 2 / 3),
        ("in Paris, France", ["Paris"], 1 / 2),
        ("new new york", ["new york york"], 2 / 3),
        ("Rome", ["Paris"], 0),
        ("Rome", [], 0),
        ("", ["Rome"], 0),
        ("", [" "], 1),
    ],
)
def test_f1_of_known_pairs(prediction, answers, f1):
    assert token_f1(prediction, answers) == pytest.approx(f1)


@given(TEXTS, st.lists(TEXTS, max_size=3))
def test_f1_is_what_the_definition_gives(prediction, answers):
    assert token_f1(prediction, answers) == pytest.approx(f1_by_loops(prediction, answers))


@given(TEXTS | st.text(), st.lists(TEXTS | st.text(), max_size=3))
def test_f1_is_a_share_and_1_for_an_exact_match(prediction, answers):
    f1 = token_f1(prediction, answers)
    assert 0 <= f1 <= 1
    if exact_match(prediction, answers):
        assert f1 == 1


@pytest.mark.parametrize(
    ("prediction", "answers", "right"),
    [
        ("Berlin, the capital of Germany", ["Berlin"], True),
        ("The Berlin wall", ["Berlin"], True),
        ("It is Berlin", ["Berlin"], False),
        ("Berlin is it", ["New York", "Berlin"], True),
        ("New York", ["New York", "Berlin"], False),
        ("", ["Berlin"], False),
        ("New York", ["New York"], None),
        ("Berlin", [], None),
    ],
)
def test_the_first_word_counts_where_an_answer_is_one_word(prediction, answers, right):
    assert first_word_match(prediction, answers) is right
