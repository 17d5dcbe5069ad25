"""Exact match forgives case, punctuation, articles, spaces and Unicode's spellings, and nothing else."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.evaluation.answer_metrics import exact_match, normalize_answer


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Eiffel Tower", "eiffel tower"),
        ("an apple a day", "apple day"),
        ("theatre an", "theatre"),
        ("U.S.A.", "usa"),
        ("twenty-two", "twentytwo"),
        ("  many \t\n spaces ", "many spaces"),
        ("$5", "5"),
        ("“Hamlet” – Shakespeare’s", "hamlet shakespeares"),
        ("Ｐａｒｉｓ", "paris"),
        ("ﬁsh", "fish"),
        ("cafe\u0301", "café"),
        ("東京。", "東京"),
    ],
)
def test_case_articles_punctuation_width_and_spaces_make_no_difference(text, normal):
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("text", "normal"),
    [("The", "the"), (" A ", "a"), ("?", "?"), ("？", "?"), ("...", "..."), ("", ""), (" ", "")],
)
def test_what_would_normalise_to_nothing_stays_itself(text, normal):
    assert normalize_answer(text) == normal


@given(st.text())
def test_normalisation_ignores_case_surroundings_and_composition(text):
    assert normalize_answer(f"  {text}\n") == normalize_answer(text)
    assert normalize_answer(unicodedata.normalize("NFD", text)) == normalize_answer(text)


@given(st.text())
def test_everything_matches_itself(text):
    assert exact_match(text, [text])


def test_any_accepted_answer_counts():
    assert exact_match(" the united states.", ["USA", "United States"])
    assert not exact_match("United States of America", ["USA", "United States"])


def test_without_answers_nothing_matches():
    assert not exact_match("Paris", [])


def test_an_article_is_not_the_empty_answer():
    assert not exact_match("", ["The"])
    assert not exact_match("?", ["!"])
