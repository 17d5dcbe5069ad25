"""Rows that cannot be answered become rows that say why; all others are answered."""

import json
from typing import Any

import pytest

from flexray.sink.records.rows import ROW_SCHEMA
from tests.ray.jobs import assert_whole, make_config, question, rows_of
from tests.runs import run_shards

RECORDS: list[Any] = [
    question(1),
    question(2, question=""),
    question(3, paraphrases=[]),
    question(4, paraphrases=...),
    question(5, answers={"France": 1}),
    question(6, answers=[1, 2]),
    question(7, paraphrases=["a short one", " ".join(["long"] * 100)]),
    question(1, question="Another with the same id?"),
    question(9, id=None),
    "{this is not JSON",
    ["neither an object"],
    question(12, paraphrases=["fine", ""]),
    question(13),
]
GOOD = {1, 13}  # 1-based record numbers, as the messages have them


@pytest.fixture(scope="module")
def job(save_tiny_model, tmp_path_factory):
    """RECORDS answered without Ray, with a model of 64 positions: (data file, rows by number in the file)."""
    folder = tmp_path_factory.mktemp("bad")
    model = save_tiny_model(folder / "model", max_positions=64)
    data = folder / "bad.jsonl"
    data.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in RECORDS))
    run_shards(make_config(folder / "out", model, data, data={"shard_rows": 20}), [0])
    assert_whole(folder / "out", len(RECORDS))
    return data, {row["source_row"]: row for row in rows_of(folder / "out").values()}


def test_every_row_is_there_and_the_good_ones_are_answered(job):
    _, rows = job
    assert set(rows) == set(range(1, len(RECORDS) + 1))
    for number in GOOD:
        assert rows[number]["error"] == ""
        assert rows[number]["backend_used"] == "sdpa"
        assert rows[number]["token_ids"]


def test_an_error_row_has_no_answer_and_no_score(job):
    _, rows = job
    for number in rows.keys() - GOOD:
        row = rows[number]
        assert list(row) == ROW_SCHEMA.names
        assert row["finish_reason"] == "error"
        assert (row["prediction"], row["correct"], row["token_ids"]) == ("", None, [])
        assert (row["backend_requested"], row["backend_used"], row["attempts"]) == ("sdpa", "", 0)


@pytest.mark.parametrize(
    ("row", "field", "value", "problem"),
    [
        pytest.param(2, "question", "''", "the text is empty", id="empty question"),
        pytest.param(3, "paraphrases", "[]", "the list is empty", id="no paraphrases"),
        pytest.param(
            4,
            "paraphrases",
            "(no such field)",
            "needed, not a missing field",
            id="no field",
        ),
        pytest.param(
            5, "answers", "{'France': 1}", "a list of strings is needed, not an object", id="answers"
        ),
        pytest.param(
            6, "answers", "1", "element 1 of 2 is not a string, but a number", id="answers of numbers"
        ),
        pytest.param(
            7, "paraphrases", "'a short one', 'long long", "positions are needed (answer included)", id="long"
        ),
        pytest.param(8, "id", "'q1'", "has the same id as", id="duplicate id"),
        pytest.param(9, "id", "None", "an id must be a string or a whole number, but is null", id="no id"),
        pytest.param(10, "(record)", "'{this is not JSON'", "the line is not JSON", id="no JSON"),
        pytest.param(11, "(record)", "neither an object", "must be a JSON object, not a list", id="list"),
        pytest.param(12, "paraphrases", "''", "element 2 of 2 is empty", id="empty paraphrase"),
    ],
)
def test_the_error_names_file_row_field_value_and_problem(job, row, field, value, problem):
    data, rows = job
    error = rows[row]["error"]
    assert error.startswith(f"{data}, row {row}, field {field!r}: ")
    assert problem in error
    assert "(value: " in error
    assert value in error


def test_a_prompt_that_is_too_long_says_by_how_much(job):
    _, rows = job
    assert ", the model has 64" in rows[7]["error"]


def test_a_duplicate_names_where_the_id_stood_first_and_gets_a_row_id_of_its_own(job):
    data, rows = job
    assert f"has the same id as {data}, row 1" in rows[8]["error"]
    assert rows[1]["row_id"] == "qa/test/q1"
    assert rows[8]["row_id"] == "qa/test/q1#2"
