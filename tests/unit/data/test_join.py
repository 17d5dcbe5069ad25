"""Paraphrases from another file, joined by id."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexray.config import DataConfig
from flexray.data import scan
from flexray.errors import DataError
from tests.unit.data.conftest import data_config, read_all, record, write

WEBQA = [{"qId": f"w{i}", "qText": f"who is {i}?", "answers": [f"a{i}"]} for i in range(4)]


def webqa(tmp_path: Path, joined: list[Any], **keys: Any) -> DataConfig:
    files = {"paraphrase_files": str(write(tmp_path / "more.jsonl", joined))}
    return data_config(write(tmp_path / "in.json", WEBQA), kind="webqa", **files | keys)


def more(i: int, **changes: Any) -> dict[str, Any]:
    return {"id": f"w{i}", "paraphrases": [f"{i} is who?", f"tell me who {i} is"]} | changes


ALL = [more(i) for i in range(4)]


@pytest.mark.parametrize("extension", ["jsonl", "json", "parquet"])
def test_joined_paraphrases_come_behind_the_question(tmp_path: Path, extension: str) -> None:
    joined = [str(write(tmp_path / f"more{i}.{extension}", ALL[i : i + 2])) for i in (0, 2)]
    config = webqa(tmp_path, [], paraphrase_files=joined)
    questions = read_all(config)
    assert [q.paraphrases for q in questions] == [
        (f"who is {i}?", f"{i} is who?", f"tell me who {i} is") for i in range(4)
    ]
    assert {(q.error, q.num_manual, q.confidences) for q in questions} == {("", 1, None)}


def test_the_question_can_be_left_out(tmp_path: Path) -> None:
    questions = read_all(webqa(tmp_path, ALL, include_question=False))
    assert questions[0].paraphrases == ("0 is who?", "tell me who 0 is")
    assert (questions[0].error, questions[0].num_manual) == ("", 0)


def test_confidences_are_joined_and_the_question_has_one_of_1(tmp_path: Path) -> None:
    joined = [more(0, confidences=[0.5, 0]), more(1, confidences=None), more(2), more(3, confidences=[0.5])]
    questions = read_all(webqa(tmp_path, joined))
    assert [q.confidences for q in questions[:3]] == [(1.0, 0.5, 0.0), None, None]
    assert [bool(q.error) for q in questions] == [False, False, False, True]
    assert "field 'confidences of " in questions[3].error
    assert "more.jsonl, row 4'" in questions[3].error
    cut = read_all(webqa(tmp_path, joined[:3], max_paraphrases=2))
    assert (cut[0].paraphrases, cut[0].confidences) == (("who is 0?", "0 is who?"), (1.0, 0.5))


def test_lists_may_be_json_in_a_text(tmp_path: Path) -> None:
    lines = ["id,paraphrases,confidences", 'q1,"[""x"",""y""]","[0.5,1]"', 'q2,"[""z""]",']
    (tmp_path / "more.csv").write_text("\n".join(lines) + "\n")
    data = write(tmp_path / "in.jsonl", [record(1), record(2)])
    one, two = read_all(data_config(data, paraphrase_files=str(tmp_path / "more.csv")))
    assert (one.paraphrases[2:], one.confidences, one.error) == (("x", "y"), (1.0, 1.0, 0.5, 1.0), "")
    assert (two.paraphrases[2:], two.confidences, two.error) == (("z",), None, "")


@pytest.mark.parametrize("own", [..., None, [], ""])
def test_a_row_may_have_all_its_paraphrases_from_the_files(tmp_path: Path, own: Any) -> None:
    files = {"paraphrase_files": str(write(tmp_path / "more.jsonl", [{"id": "q1", "paraphrases": ["x"]}]))}
    rows = [record(0), record(1, paraphrases=own), record(2, paraphrases=own)]
    _, one, two = read_all(data_config(write(tmp_path / "in.jsonl", rows), **files))
    assert (one.paraphrases, one.error) == (("x",), "")
    assert "field 'paraphrases'" in two.error


def test_the_rows_own_paraphrases_come_first(tmp_path: Path) -> None:
    joined = [{"id": "q1", "paraphrases": ["joined"], "confidences": [0.25]}]
    files = {"paraphrase_files": str(write(tmp_path / "more.jsonl", joined))}
    one, two = read_all(data_config(write(tmp_path / "in.jsonl", [record(1), record(2)]), **files))
    assert one.paraphrases == (*record(1)["paraphrases"], "joined")
    assert one.confidences == (1.0, 1.0, 0.25)
    assert (two.error, two.paraphrases) == ("", tuple(record(2)["paraphrases"]))


def test_a_text_that_the_row_has_already_is_asked_once_with_the_confidence_it_is_given(
    tmp_path: Path,
) -> None:
    joined = [
        more(0, paraphrases=["0 is who?", "who is 0?"], confidences=[0.25, 0.5]),
        more(1, paraphrases=["who is 1?"], confidences=[0.75]),
        more(2, paraphrases=["who is 2?", "2 is who?"]),
        more(3, paraphrases=["who is 3?", "3 is who?"], confidences=[0.5]),
    ]
    *good, bad = read_all(webqa(tmp_path, joined))
    assert [(q.error, q.paraphrases, q.confidences) for q in good] == [
        ("", ("who is 0?", "0 is who?"), (0.5, 0.25)),
        ("", ("who is 1?",), (0.75,)),
        ("", ("who is 2?", "2 is who?"), None),
    ]
    assert "2 numbers for 3 paraphrases" in bad.error
    left_out = read_all(webqa(tmp_path, joined, include_question=False))
    assert (left_out[1].paraphrases, left_out[1].confidences) == (("who is 1?",), (0.75,))


def test_a_rows_own_paraphrases_are_asked_once_with_the_confidences_they_are_given(tmp_path: Path) -> None:
    own = record(1)["paraphrases"]
    joined = [{"id": "q1", "paraphrases": [*own, "joined"], "confidences": [0.5, 0.75, 0.25]}]
    files = {"paraphrase_files": str(write(tmp_path / "more.jsonl", joined))}
    [row] = read_all(data_config(write(tmp_path / "in.jsonl", [record(1)]), **files))
    assert (row.error, row.paraphrases, row.confidences) == ("", (*own, "joined"), (0.5, 0.75, 0.25))


def test_an_id_without_paraphrases_is_asked_alone_or_an_error_naming_both_files(
    tmp_path: Path,
) -> None:
    alone = read_all(webqa(tmp_path, ALL[1:]))
    assert (alone[0].error, alone[0].paraphrases) == ("", ("who is 0?",))
    bad, *good = read_all(webqa(tmp_path, ALL[1:], include_question=False))
    assert not any(q.error for q in good)
    assert "in.json, row 1, field 'paraphrases of " in bad.error
    assert "more.jsonl'" in bad.error
    assert "the files have none for this id (value: 'w0')" in bad.error


def test_paraphrases_of_other_rows_do_no_harm_but_a_file_of_none_of_them_does(tmp_path: Path) -> None:
    assert len(read_all(webqa(tmp_path, [*ALL, more(99)]))) == 4
    with pytest.raises(DataError, match=r"none of the rows' ids.* 'w0', 'w1', 'w2'; the file has 'w99'"):
        scan(webqa(tmp_path, [more(99)]))


def test_a_number_joins_its_digits(tmp_path: Path) -> None:
    files = {"paraphrase_files": str(write(tmp_path / "more.jsonl", [{"id": "7", "paraphrases": ["x"]}]))}
    [question] = read_all(data_config(write(tmp_path / "in.jsonl", [record(1, id=7)]), **files))
    assert question.paraphrases[-1] == "x"


def test_a_repeated_id_is_the_error_of_its_row(tmp_path: Path) -> None:
    questions = read_all(webqa(tmp_path, [*ALL, more(1)]))
    assert [bool(q.error) for q in questions] == [False, True, False, False]
    assert "in.json, row 2, field 'id of " in questions[1].error
    assert "more.jsonl, row 5'" in questions[1].error
    assert "more.jsonl, row 2" in questions[1].error


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"paraphrases": ["x"]}, r"row 5, field 'id': a missing field"),
        ({"id": None, "paraphrases": ["x"]}, r"row 5, field 'id': an id must be"),
        (["w0"], r"row 5, field '\(record\)': a record must be a JSON object"),
    ],
)
def test_a_record_that_is_no_rows_ends_the_scan(tmp_path: Path, bad: Any, problem: str) -> None:
    with pytest.raises(DataError, match=rf"more\.jsonl, {problem}"):
        scan(webqa(tmp_path, [*ALL, bad]))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(paraphrases=_json, confidences=_json, include=st.booleans())
def test_whatever_is_joined_only_its_row_suffers(
    tmp_path_factory: pytest.TempPathFactory, paraphrases: Any, confidences: Any, include: bool
) -> None:
    bad = more(0, paraphrases=paraphrases, confidences=confidences)
    questions = read_all(webqa(tmp_path_factory.mktemp("x"), [bad, *ALL[1:]], include_question=include))
    assert not any(q.error for q in questions[1:])
    first = questions[0]
    assert first.error or len(first.paraphrases) == len(first.confidences or first.paraphrases) > 0


def test_a_key_that_is_there_twice_ends_the_scan(tmp_path: Path) -> None:
    (tmp_path / "more.jsonl").write_text('{"id": "q1", "paraphrases": ["a"], "paraphrases": ["b"]}')
    rows = write(tmp_path / "a.jsonl", [record(1)])
    with pytest.raises(DataError, match=r"more\.jsonl, row 1, field 'paraphrases': the key is repeated"):
        scan(data_config(rows, paraphrase_files=str(tmp_path / "more.jsonl")))
