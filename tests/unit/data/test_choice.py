"""Which of a row's paraphrases are asked, in which order, and from which fields they come."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.data.choice import drawn
from flexray.errors import ConfigError
from tests.unit.data.conftest import data_config, read_all, record, write

TEXTS = [f"text {i}" for i in range(6)]


def asked(tmp_path: Path, row: dict[str, Any], suffix: str = ".jsonl", **settings: Any) -> Any:
    """The one question of a file."""
    [question] = read_all(data_config(write(tmp_path / f"in{suffix}", [row]), **settings))
    return question


def numbers(question: Any) -> list[int]:
    return [int(text.removeprefix("text ")) for text in question.paraphrases]


def test_paraphrases_are_asked_by_index_in_the_given_order(tmp_path: Path) -> None:
    row = record(1, paraphrases=TEXTS, share=[i / 10 for i in range(6)])
    question = asked(tmp_path, row, paraphrases=[4, 0, 3], fields={"confidences": "share"})
    assert (numbers(question), question.confidences, question.error) == ([4, 0, 3], (0.4, 0.0, 0.3), "")


def test_an_index_may_come_again(tmp_path: Path) -> None:
    assert numbers(asked(tmp_path, record(1, paraphrases=TEXTS), paraphrases=[2, 2, 2])) == [2, 2, 2]


def test_a_row_that_lacks_an_index_is_an_error_row_that_names_it(tmp_path: Path) -> None:
    question = asked(tmp_path, record(1, paraphrases=TEXTS), paraphrases=[0, 7])
    assert "in.jsonl, row 1, field 'paraphrases'" in question.error
    assert "names index 7, but only indices 0 to 5 are there" in question.error
    assert len(question.paraphrases) == 6


def test_index_0_is_the_question_if_it_is_included(tmp_path: Path) -> None:
    question = asked(tmp_path, record(1, paraphrases=TEXTS), include_question=True, paraphrases=[0, 6])
    assert question.paraphrases == ("What is 1?", "text 5")


def test_the_first_manual_and_automatic_ones_are_used(tmp_path: Path) -> None:
    row = record(1, paraphrases=TEXTS, num_manual=3)
    question = asked(tmp_path, row, max_manual=2, max_automatic=1, fields={"num_manual": "num_manual"})
    assert (numbers(question), question.num_manual) == ([0, 1, 3], 2)
    question = asked(
        tmp_path,
        row,
        max_manual=2,
        max_automatic=1,
        paraphrases=[1, 2, 0],
        fields={"num_manual": "num_manual"},
    )
    assert (numbers(question), question.num_manual) == ([1, 3, 0], 1)


def test_drawn_ones_depend_on_the_seed_and_the_row(tmp_path: Path) -> None:
    rows = [record(i, paraphrases=TEXTS, num_manual=1) for i in range(30)]
    path = write(tmp_path / "in.jsonl", rows)
    keys = {"fields": {"num_manual": "num_manual"}, "max_automatic": 2}

    def drawn_by(seed: int) -> list[list[int]]:
        return [numbers(question) for question in read_all(data_config(path, paraphrase_seed=seed, **keys))]

    assert drawn_by(1) == drawn_by(1) != drawn_by(2)
    assert {tuple(of_row[:1]) for of_row in drawn_by(1)} == {(0,)}
    assert {len(of_row) for of_row in drawn_by(1)} == {3}
    assert len({tuple(of_row) for of_row in drawn_by(1)}) > 5


def test_a_row_without_a_choice_is_an_error_row(tmp_path: Path) -> None:
    question = asked(tmp_path, record(1, paraphrases=TEXTS), max_automatic=0)
    assert "no paraphrase is left" in question.error


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_paraphrases_of_several_fields_follow_one_another(tmp_path: Path, suffix: str) -> None:
    row = record(1, paraphrases=..., by_hand=["text 0", "text 1"], made=["text 2"])
    fields = {"paraphrases": ["by_hand", "made"], "num_manual": "by_hand"}
    question = asked(tmp_path, row, suffix, fields=fields)
    assert (numbers(question), question.num_manual, question.error) == ([0, 1, 2], 2, "")


def test_numbered_fields_are_named_by_their_range_and_may_be_empty(tmp_path: Path) -> None:
    row = record(1, paraphrases=...) | {f"p{i}": f"text {i}" for i in range(4)} | {"p2": None, "p3": ""}
    assert numbers(asked(tmp_path, row, fields={"paraphrases": "p0..3"})) == [0, 1]
    config = data_config("in.jsonl", fields={"paraphrases": ["a", "p9..11"]})
    assert config.fields.paraphrases == ("a", "p9", "p10", "p11")
    assert data_config("in.jsonl", fields={"paraphrases": ["a"]}).fields.paraphrases == "a"
    with pytest.raises(ConfigError, match=r"p0\.\.5000: more than 1000 fields"):
        data_config("in.jsonl", fields={"paraphrases": "p0..5000"})


def test_a_field_that_no_row_has_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", [record(1)])
    with pytest.raises(Exception, match=r"no record has the field 'more'\. Set data.fields.paraphrases"):
        read_all(data_config(path, fields={"paraphrases": ["paraphrases", "more"]}))


def test_a_row_with_none_of_the_fields_is_an_error_row(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", [record(1, b="x"), record(2, paraphrases=...)])
    good, bad = read_all(data_config(path, fields={"paraphrases": ["paraphrases", "b"]}))
    assert good.error == ""
    assert "row 2, field 'paraphrases, b'" in bad.error


def test_the_old_name_of_the_seed_still_loads() -> None:
    with pytest.warns(FutureWarning, match="data.template_seed is now data.paraphrase_seed"):
        assert data_config("a", template_seed=3).paraphrase_seed == 3


@given(st.lists(st.text(max_size=3), max_size=8), st.integers(0, 8), st.integers(0, 3))
def test_drawn_indices_are_in_order_and_distinct(texts: list[str], most: int, seed: int) -> None:
    found = drawn(texts, most, "row", seed)
    assert found == sorted(set(found))
    assert len(found) == min(most, len(texts))
