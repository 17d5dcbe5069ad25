from pathlib import Path

import pytest

from flexray.data import PLAN_SCHEMA, list_ranges, scan
from flexray.errors import DataError
from tests.unit.data.conftest import data_config, read_all, record, write


def test_every_row_is_there_once_in_order_of_file_and_row(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", [record(i) for i in range(5, 8)])
    write(tmp_path / "a.jsonl", [record(i) for i in range(5)])
    table = scan(data_config(tmp_path / "*", split="dev"))
    assert table.schema == PLAN_SCHEMA
    table.validate(full=True)
    assert table["row_id"].to_pylist() == [f"d/dev/q{i}" for i in range(8)]
    assert [Path(file).name for file in table["source_file"].to_pylist()] == ["a.jsonl"] * 5 + [
        "b.parquet"
    ] * 3
    assert table["source_row"].to_pylist() == [1, 2, 3, 4, 5, 1, 2, 3]


def test_row_ids_do_not_depend_on_order_or_files(tmp_path: Path) -> None:
    records = [record(i) for i in range(9)] + [record(9, id=None), record(10, id=True)]

    def ids(*files: list[dict]) -> dict[str, str]:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        paths = [write(folder / f"{i}.jsonl", rows) for i, rows in enumerate(files)]
        return {q.question: q.row_id for q in read_all(data_config(paths))}

    expected = ids(records)
    assert len(expected) == 11
    assert ids(records[::-1]) == expected
    assert ids(records[6:], records[:6]) == expected


@pytest.mark.parametrize("limit", [1, 4, 5, 6, 8, 100])
def test_limit_takes_the_first_rows_of_the_data_set(tmp_path: Path, limit: int) -> None:
    write(tmp_path / "a.jsonl", [record(i) for i in range(5)])
    write(tmp_path / "b.json", [record(i) for i in range(5, 8)])
    config = data_config(tmp_path / "*", limit=limit)
    assert [q.source_id for q in read_all(config)] == [f"q{i}" for i in range(min(limit, 8))]
    assert len(list_ranges(config)) == (1 if limit <= 5 else 2)


@pytest.mark.parametrize("extension", ["jsonl", "json", "parquet"])
def test_every_further_row_with_an_id_is_an_error_that_names_the_first(
    tmp_path: Path, extension: str
) -> None:
    write(tmp_path / f"a.{extension}", [record(1), record(2), record(3, id="q1")])
    write(tmp_path / f"b.{extension}", [record(4, id="q1"), record(5, id="q2"), record(6)])
    questions = read_all(data_config(tmp_path / "*"))
    assert [q.row_id.removeprefix("d/test/") for q in questions] == ["q1", "q2", "q1#2", "q1#3", "q2#2", "q6"]
    assert [bool(q.error) for q in questions] == [False, False, True, True, True, False]
    assert f"a.{extension}, row 3, field 'id'" in questions[2].error
    assert f"a.{extension}, row 1" in questions[3].error
    assert f"a.{extension}, row 2" in questions[4].error
    assert questions[3].source_id == "q1"
    assert questions[3].paraphrases


def test_a_number_and_its_digits_are_the_same_id(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [record(1, id=7), record(2, id="7")])
    assert [q.row_id for q in read_all(data_config(path))] == ["d/test/7", "d/test/7#2"]


def test_a_duplicate_never_takes_the_id_of_a_real_row(tmp_path: Path) -> None:
    ids = ["x", "x", "x#2", "x#2", "x", "x#2#2"]
    path = write(tmp_path / "a.jsonl", [record(i, id=name) for i, name in enumerate(ids)])
    questions = read_all(data_config(path))
    assert [q.row_id.removeprefix("d/test/") for q in questions] == [
        "x",
        "x#3",
        "x#2",
        "x#2#3",
        "x#4",
        "x#2#2",
    ]
    assert [bool(q.error) for q in questions] == [False, True, False, True, True, False]


def test_without_an_id_field_the_content_names_the_row(tmp_path: Path) -> None:
    first = record(1, id=...)
    reordered = dict(reversed(first.items())) | {"unmapped": 5}
    path = write(tmp_path / "a.jsonl", [first, record(2, id=...), reordered])
    a, b, c = read_all(data_config(path, fields={"id": None}))
    assert a.row_id == f"d/test/{a.source_id}"
    assert len(a.source_id) == 16
    assert b.row_id != a.row_id
    assert c.row_id == a.row_id + "#2"
    assert "the same content as" in c.error


@pytest.mark.parametrize("extension", ["jsonl", "json", "parquet"])
def test_a_field_that_no_record_has_is_named_with_those_they_have(tmp_path: Path, extension: str) -> None:
    path = write(tmp_path / f"a.{extension}", [{"qId": "1", "q": {"text": "?"}, "answers": ["x"]}])
    with pytest.raises(
        DataError, match=r"no record has the field 'id'.*data\.fields\.id.*'qId', 'q', 'q\.text'"
    ):
        scan(data_config(path))
    with pytest.raises(DataError, match="no record has the field 'paraphrases'"):
        scan(data_config(path, fields={"id": "qId", "question": "q.text"}))


def test_a_field_that_one_record_has_is_enough_for_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [record(1, answers=...), record(2)])
    assert [bool(q.error) for q in read_all(data_config(path))] == [True, False]


def test_files_without_rows_are_an_error_only_together(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [])
    write(tmp_path / "b.json", [])
    write(tmp_path / "c.parquet", [record(1)])
    with pytest.raises(DataError, match="no rows in any file"):
        scan(data_config(tmp_path / "*.json*"))
    assert len(read_all(data_config(tmp_path / "*"))) == 1


def test_a_file_without_any_object_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("hello\nworld\n")
    with pytest.raises(DataError, match="none of the 2 row"):
        scan(data_config(path))


def test_the_demo_data_has_five_distinct_paraphrases_a_row_and_no_faults() -> None:
    questions = read_all(data_config(Path(__file__).parents[3] / "jobs/data/demo.jsonl"))
    assert len(questions) == 72
    for q in questions:
        texts = (q.question, *q.paraphrases)
        assert q.error == ""
        assert len({t.lower() for t in texts}) == 6
        assert all(t.endswith("?") for t in texts)
        assert not [a for a in q.answers or () for t in texts if a.lower() in t.lower()]
