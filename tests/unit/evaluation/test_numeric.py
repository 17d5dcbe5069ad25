"""Numbers are compared as numbers, however they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.evaluation.numeric import numeric_match


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("1,000", "1000"),
        ("1000.0", "1,000"),
        ("It is 1\u202f000 km.", "1000"),
        ("about $5 million", "5,000,000"),
        ("-3", "\u22123"),
        ("5 km", "5 miles"),  # units are not compared
        ("5km", "5"),
        ("1e3", "1000"),
        (".5", "0.50"),
        ("１２", "12"),
        ("COVID-19", "19"),
        ("1990-2000", "1990"),
        ("12345678901234567890123456789012345", "12345678901234567890123456789012345.0"),
    ],
)
def test_the_same_number_in_two_spellings(prediction, answer):
    assert numeric_match(prediction, [answer]) is True


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("1001", "1000"),
        ("-3", "3"),
        ("none", "3"),
        ("", "0"),
        ("In 2020 it was 5", "5"),  # the first number counts
        ("12345678901234567890123456789012346", "12345678901234567890123456789012345"),
        ("9" * 5_000, "9"),
    ],
)
def test_another_number_or_none(prediction, answer):
    assert numeric_match(prediction, [answer]) is False


def test_within_a_tolerance_which_is_a_share_of_the_accepted_number():
    assert numeric_match("101", ["100"], tolerance=0.01) is True
    assert numeric_match("102", ["100"], tolerance=0.01) is False
    assert numeric_match("0.001", ["0"], tolerance=0.5) is False
    assert numeric_match("1e999", ["1e-999"], tolerance=0.5) is False
    assert numeric_match("30", ["10", "30.0"]) is True


@pytest.mark.parametrize("answers", [[], [""], ["Paris"], ["World War 2"]])
def test_it_applies_only_to_answers_that_are_numbers(answers):
    assert numeric_match("2", answers) is None


@given(st.integers(-(10**30), 10**30))
def test_grouping_changes_nothing(number):
    assert numeric_match(f"{number:,}", [str(number)]) is True
    assert numeric_match(f"It is {number:,}.00.", [str(number)]) is True
    assert numeric_match(str(number + 1), [str(number)]) is False


@given(st.text(), st.lists(st.text(), max_size=2))
def test_any_text_can_be_compared(prediction, answers):
    assert numeric_match(prediction, answers) in (True, False, None)
