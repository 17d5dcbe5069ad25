"""Lemma match forgives the forms of words and what stands around the answer, but no gap in it."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.evaluation.answer_metrics import PLAIN_TOKENS, exact_match, find_lemmatizer, lemma_match

WORDS = st.sampled_from(["city", "cities", "saw", "see", "Mice", "the", "?"])
TEXTS = st.lists(WORDS, max_size=5).map(" ".join)


@pytest.fixture(scope="module")
def english():
    pytest.importorskip("simplemma")
    return find_lemmatizer()


@pytest.mark.parametrize(
    ("prediction", "answers", "right"),
    [
        ("They are large cities.", ["large city"], True),
        ("a mouse", ["Mice"], True),
        ("novels", ["poem", "novel"], True),
        ("Paris, the capital", ["paris"], True),
        ("city that is large", ["large city"], False),
        ("large old city", ["large city"], False),
        ("parish", ["Paris"], False),
        ("Paris", [], False),
        ("Paris", [""], False),
        ("", ["Paris"], False),
        ("", [" "], True),
    ],
)
def test_an_answer_is_right_if_its_lemmas_stand_together_in_the_prediction(
    english, prediction, answers, right
):
    assert lemma_match(prediction, answers, english) is right


def test_the_name_says_what_gave_the_lemmas(english):
    assert english.name.startswith("simplemma ")
    assert PLAIN_TOKENS.name == "normalised tokens"


def test_without_simplemma_tokens_are_compared_as_they_are(monkeypatch):
    monkeypatch.setitem(sys.modules, "simplemma", None)
    plain = find_lemmatizer()
    assert plain == PLAIN_TOKENS
    assert lemma_match("It is the Large City!", ["large city"], plain)
    assert not lemma_match("large cities", ["large city"], plain)


@given(TEXTS, TEXTS)
def test_it_is_what_padded_text_search_gives(prediction, answer):
    found, wanted = (" ".join(["", *PLAIN_TOKENS(text), ""]) for text in (prediction, answer))
    expected = wanted in found if wanted.strip() else not found.strip()
    assert lemma_match(prediction, [answer], PLAIN_TOKENS) is expected


@given(TEXTS | st.text(), st.lists(TEXTS | st.text(), max_size=3))
def test_an_exact_match_is_a_lemma_match(english, prediction, answers):
    if exact_match(prediction, answers):
        assert lemma_match(prediction, answers, english)
        assert lemma_match(prediction, answers, PLAIN_TOKENS)
