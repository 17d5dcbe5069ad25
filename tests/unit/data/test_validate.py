import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexray.data.question import Question
from tests.unit.data.conftest import data_config, read_all, record, write

Only = Callable[..., Question]

FAULTS = [
    ("id", ..., "missing"),
    ("id", None, "null"),
    ("id", True, "a boolean"),
    ("id", 1.0, "a number"),
    ("id", float("nan"), "a number"),
    ("id", "", "empty"),
    ("id", " ", "empty"),
    ("id", ["x"], "a list"),
    ("id", "\ud800", "surrogate"),
    ("question", ..., "a missing field"),
    ("question", None, "null"),
    ("question", "", "empty"),
    ("question", " \n", "empty"),
    ("question", 5, "a number"),
    ("question", ["?"], "a list"),
    ("question", "a \udfff?", "surrogate pair at character 3"),
    ("paraphrases", ..., "a missing field"),
    ("paraphrases", None, "null"),
    ("paraphrases", [], "the list is empty"),
    ("paraphrases", "text", "not a string"),
    ("paraphrases", {"a": "b"}, "an object"),
    ("paraphrases", ["ok", 3], "element 2 of 2 is not a string, but a number"),
    ("paraphrases", ["ok", None], "element 2 of 2 is not a string, but null"),
    ("paraphrases", ["ok", " "], "element 2 of 2 is empty"),
    ("paraphrases", ["ok", ["x"]], "a list"),
    ("paraphrases", ["ok", "\ud800"], "surrogate"),
    ("answers", ..., "set data.fields.answers to null"),
    ("answers", None, "set data.fields.answers to null"),
    ("answers", [], "set data.fields.answers to null"),
    ("answers", "", "element 1 of 1 is empty"),
    ("answers", "['a', 'b']", "the text looks like a list, but is not a JSON list"),
    (
        "answers",
        "{'text': ['a'], 'answer_start': [1]}",
        "the text looks like a mapping, but is not a JSON list",
    ),
    ("answers", '{"text": ["a"]}', "the text looks like a mapping"),
    ("answers", "('a', 'b')", "the text looks like a list"),
    ("answers", "array(['a'], dtype=object)", "the text looks like a list"),
    ("answers", '["a", "b', "the text looks like a list"),
    ("answers", '["a", 7]', "element 2 of 2 is not a string, but a number"),
    ("answers", "[]", "set data.fields.answers to null"),
    ("answers", {"a": "b"}, "an object"),
    ("paraphrases", '["ok", ""]', "element 2 of 2 is empty"),
    ("answers", ["a", 7], "element 2 of 2"),
    ("answers", [""], "element 1 of 1 is empty"),
]


@pytest.mark.parametrize(("field", "value", "problem"), FAULTS)
def test_a_bad_value_names_file_row_field_value_and_keeps_the_rest(
    only: Only, field: str, value: Any, problem: str
) -> None:
    question = only(record(2, **{field: value}))
    assert "in.jsonl, row 2, field " + repr(field) in question.error
    assert problem in question.error
    question.error.encode()
    rest = {
        "id": question.source_id == "q2",
        "question": question.question == "What is 2?",
        "paraphrases": len(question.paraphrases) == 2,
        "answers": question.answers == ("2",),
    }
    del rest[field]
    assert all(rest.values())
    assert question.row_id.startswith("d/test/!" if field == "id" else "d/test/q2")


def test_all_faults_of_a_row_are_reported(only: Only) -> None:
    question = only(record(2, question="", answers=[], id=None))
    assert [f"field '{f}'" in question.error for f in ("id", "question", "answers")] == [True] * 3


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"id": "x", "question": ', "not JSON"),
        (b"hello", "not JSON"),
        (b'{"id": "\xff"}', "not UTF-8"),
        (b"[1, 2]", "not a list"),
        (b"null", "not null"),
        (b"NaN", "not a number"),
        (b'"text"', "not a string"),
        (b'{"id": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"id": ' + b"[" * 500 + b"]" * 500 + b"}", "nested"),
        (b"[" * 100_000, "nested"),
    ],
)
def test_a_line_that_is_no_object_is_one_faulty_row(tmp_path: Path, line: bytes, problem: str) -> None:
    path = tmp_path / "a.jsonl"
    good = [json.dumps(record(i)).encode() for i in range(2)]
    path.write_bytes(b"\n".join([good[0], line, good[1], line]))
    questions = read_all(data_config(path))
    assert [bool(q.error) for q in questions] == [False, True, False, True]
    bad = questions[1]
    assert problem in bad.error
    assert "a.jsonl, row 2" in bad.error
    assert (bad.source_id, bad.question, bad.paraphrases, bad.answers) == ("", "", (), None)
    assert bad.row_id.startswith("d/test/!")
    assert questions[3].row_id == bad.row_id + "#2"


def test_text_is_taken_as_it_stands(only: Only) -> None:
    text = "  two  spaces,\ttab, \u0000, é and 🦊 "
    question = only(record(2, question=text, paraphrases=[text, text]))
    assert (question.error, question.question, question.paraphrases) == ("", text, (text, text))


def test_numbers_outside_json_do_no_harm(only: Only) -> None:
    question = only(record(2, id=10**300, unmapped=[float("nan"), float("-inf")]))
    assert (question.error, question.source_id) == ("", str(10**300))


def test_the_question_comes_first_if_included_and_max_paraphrases_cuts(only: Only) -> None:
    question = only(record(2), include_question=True, max_paraphrases=2)
    assert question.paraphrases == ("What is 2?", "2 is what?")


def test_included_question_replaces_paraphrases_only_if_none_are_mapped(only: Only) -> None:
    assert only(record(2, paraphrases=[]), include_question=True).error
    question = only(record(2, paraphrases=...), include_question=True, fields={"paraphrases": None})
    assert (question.error, question.paraphrases) == ("", ("What is 2?",))


def test_answers_are_none_if_not_mapped(only: Only) -> None:
    question = only(record(2, answers=5), fields={"answers": None})
    assert (question.error, question.answers) == ("", None)


_text = st.text(st.characters(exclude_categories=()), max_size=4)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=6,
)
_names = st.sampled_from(["id", "question", "paraphrases", "answers", "other"])
_good = st.fixed_dictionaries({"id": _text, "question": _text, "paraphrases": st.lists(_text)})


@settings(max_examples=80, deadline=None)
@given(
    records=st.lists(_json | st.dictionaries(_names, _json) | _good, max_size=6),
    extension=st.sampled_from(["jsonl", "json"]),
    content_ids=st.booleans(),
)
def test_any_json_value_is_one_question(records: list[Any], extension: str, content_ids: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / f"a.{extension}", [record(0), *records])
        fields = {"id": None} if content_ids else {}
        questions = read_all(data_config(path, fields=fields))
    assert len(questions) == len(records) + 1
    assert len({q.row_id for q in questions}) == len(questions)
    for q in questions:
        texts = [q.row_id, q.source_id, q.question, q.error, *q.paraphrases, *(q.answers or ())]
        assert all(isinstance(t, str) and t.encode() is not None for t in texts)
        assert q.error or (q.question.strip() and q.paraphrases and q.answers)


def test_a_list_that_is_json_in_a_text_is_read_as_the_list(only: Only) -> None:
    question = only(record(2, answers='["a", "b c"]', paraphrases=' ["Q?", "R?"]'))
    assert (question.error, question.answers, question.paraphrases) == ("", ("a", "b c"), ("Q?", "R?"))


@pytest.mark.parametrize("text", ["Paris", "[sic] Paris", '"Paris"', "{}"])
def test_a_text_by_itself_is_the_one_answer(only: Only, text: str) -> None:
    question = only(record(2, answers=text))
    assert (question.error, question.answers) == ("", (text,))


@pytest.mark.parametrize("relation", [..., None, "", " "])
def test_a_row_without_a_relation_is_in_no_group(tmp_path: Path, relation: Any) -> None:
    path = write(tmp_path / "a.jsonl", [record(1, relation="r"), record(2, relation=relation)])
    questions = read_all(data_config(path, fields={"relation": "relation"}))
    assert [(q.error, q.relation) for q in questions] == [("", "r"), ("", "")]


@pytest.mark.parametrize("extension", ["jsonl", "json"])
def test_a_key_that_is_there_twice_is_the_rows_error(tmp_path: Path, extension: str) -> None:
    rows = [
        '{"id": "a", "question": "Q?", "question": "R?", "paraphrases": ["S?"], "answers": ["x"]}',
        '{"id": "b", "question": "Q?", "paraphrases": ["S?"], "answers": ["x"], "m": [{"k": 1, "k": 2}]}',
        '{"id": "c", "question": "Q?", "paraphrases": ["S?"], "answers": ["x"], "m": [{"k": 1}, {"k": 2}]}',
    ]
    text = "\n".join(rows) if extension == "jsonl" else f"[{', '.join(rows)}]"
    (tmp_path / f"a.{extension}").write_text(text)
    first, nested, good = read_all(data_config(tmp_path / f"a.{extension}"))
    assert "row 1, field 'question': the key is repeated (value: 'R?'). Keep only one of them." in first.error
    assert "row 2, field 'k': the key is repeated (value: 2). Keep only one of them." in nested.error
    assert (first.source_id, nested.source_id, good.error) == ("a", "b", "")


@pytest.mark.parametrize("value", [["Rome", "Oslo"], '["Rome", "Oslo"]'])
def test_candidates_are_a_list_or_one_that_is_json_in_a_text(tmp_path: Path, value: Any) -> None:
    assert with_candidates(tmp_path, value).candidates == ("Rome", "Oslo")


@pytest.mark.parametrize(
    ("value", "problem"),
    [([], "the list is empty"), ("Rome", "not a string"), (["Rome", " "], "element 2 of 2 is empty")],
)
def test_bad_candidates_are_the_rows_error(tmp_path: Path, value: Any, problem: str) -> None:
    error = with_candidates(tmp_path, value).error
    assert "in.jsonl, row 1, field 'options'" in error
    assert problem in error


def with_candidates(tmp_path: Path, value: Any) -> Question:
    path = write(tmp_path / "in.jsonl", [record(1, options=value)])
    (question,) = read_all(data_config(path, fields={"candidates": "options"}))
    return question
