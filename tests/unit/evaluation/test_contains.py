"""Answers that are more than the bare answer: it stands within, in a line, or where a pattern says."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.evaluation.answer_metrics import (
    PLAIN_TOKENS,
    contains,
    exact_match,
    extracted_match,
    first_line_match,
    lemma_either,
    lemma_match,
)

WORDS = st.lists(st.sampled_from(["Paris", "the", "New", "York", "U.S.", "3.5", "?", "東京"]), max_size=4)


@pytest.mark.parametrize(
    ("prediction", "answers", "right"),
    [
        ("The capital of France is Paris.", ["Paris"], True),
        ("It was **Paris**, I think.", ["London", "paris"], True),
        ("A parish in Parisian style", ["Paris"], False),
        ("New old York", ["New York"], False),
        ("the city of new york!", ["New York"], True),
        ("a Paris-based firm", ["Paris"], True),
        ("Paris/Lyon", ["Lyon"], True),
        ("Coca Cola", ["Coca-Cola"], True),
        ("He lives in the US.", ["U.S."], True),
        ("It is 3.5 km", ["3.5"], True),
        ("It is 3.5 km", ["5"], False),
        ("about 1,000 men", ["1000"], True),
        ("the Beatles", ["Beatles"], True),
        ("Beatles", ["The Beatles"], True),
        ("in cafe\u0301 Zola", ["Café"], True),
        ("Ｐａｒｉｓ, of course", ["Paris"], True),
        ("日本の首都は東京です。", ["東京"], True),
        ("日本の首都は東です。", ["東京"], False),
        ("", ["Paris"], False),
        ("", [""], False),
        ("Paris", [""], False),
        ("Paris", [], False),
        ("the", ["The"], True),
    ],
)
def test_an_accepted_answer_stands_within_as_whole_words(prediction, answers, right):
    assert contains(prediction, answers) is right


@given(WORDS.map(" ".join), WORDS.map(" ".join))
def test_an_exact_match_of_some_text_is_contained_also_in_a_sentence(prediction, answer):
    if exact_match(prediction, [answer]) and answer.strip():
        assert contains(prediction, [answer])
        if set(answer.split()) - {"the", "?"}:  # these are not words of a longer text
            assert contains(f"It is {prediction} , he said.", [answer])


@pytest.mark.parametrize(
    ("prediction", "right"),
    [("Paris\nand more", True), ("\n\n  Paris.  \r\nLyon", True), ("Well:\nParis", False), ("", False)],
)
def test_the_first_line_is_the_first_one_that_is_not_blank(prediction, right):
    assert first_line_match(prediction, ["Paris"]) is right


@pytest.mark.parametrize(
    ("pattern", "prediction", "right"),
    [
        ("answer is (.+)", "So the answer is Paris.", True),
        (r"[A-Z]\w+$", "capital: Paris", True),
        ("is (?:(Rome)|(Paris))", "It is Paris", True),
        ("answer is (.+)", "Paris", False),
        ("(.*)", "", False),
    ],
)
def test_a_pattern_extracts_the_answer(pattern, prediction, right):
    assert extracted_match(prediction, ["Paris"], pattern=re.compile(pattern)) is right


@pytest.mark.parametrize(
    ("prediction", "answers", "right"),
    [
        ("Obama", ["Barack Obama"], True),
        ("It is Barack Obama", ["Barack Obama"], True),
        ("Barack H. Obama", ["Barack Obama"], False),
        ("", ["Barack Obama"], False),
        (" ", [""], False),
        ("Obama", [], False),
    ],
)
def test_lemmas_in_either_direction(prediction, answers, right):
    assert lemma_either(prediction, answers, PLAIN_TOKENS) is right
    if lemma_match(prediction, answers, PLAIN_TOKENS) and prediction.strip():
        assert right
