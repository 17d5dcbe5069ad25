import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flexray.data import scan
from flexray.errors import DataError
from tests.unit.data.conftest import data_config, read_all, record, write

FORMATS = ["jsonl", "json", "parquet"]


@pytest.mark.parametrize("extension", FORMATS)
def test_each_record_is_a_row_in_order(tmp_path: Path, extension: str) -> None:
    path = write(tmp_path / f"a.{extension}", [record(i) for i in range(11)])
    questions = read_all(data_config(path))
    assert [q.source_id for q in questions] == [f"q{i}" for i in range(11)]
    assert [q.source_row for q in questions] == list(range(1, 12))
    assert [q.paraphrases[0] for q in questions] == [f"{i} is what?" for i in range(11)]
    assert [q.answers for q in questions] == [(str(i),) for i in range(11)]
    assert not any(q.error for q in questions)


def test_the_format_of_the_file_does_not_change_the_rows(tmp_path: Path) -> None:
    records = [record(1), record(2, id=7), record(3, id=None), record(4, question="Où?"), record(1)]
    for r in records:  # a Parquet column has one type
        r["id"] = None if r["id"] is None else str(r["id"])
    jsonl, *others = [scan(data_config(write(tmp_path / f"a.{x}", records))) for x in FORMATS]
    places = ["source_file", "error"]
    assert all(table.drop_columns(places).equals(jsonl.drop_columns(places)) for table in others)
    assert len(jsonl) == 5


def test_blank_lines_crlf_bom_and_a_missing_last_newline_are_tolerated(tmp_path: Path) -> None:
    lines = [json.dumps(record(i)).encode() for i in range(5)]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf\n\n" + lines[0] + b"\r\n \t \n" + b"\n\n".join(lines[1:]))
    questions = read_all(data_config(path))
    assert [q.source_id for q in questions] == [f"q{i}" for i in range(5)]
    assert [q.source_row for q in questions] == [1, 2, 3, 4, 5]


def test_a_byte_order_mark_before_the_first_record_is_tolerated(tmp_path: Path) -> None:
    for extension in ("jsonl", "json"):
        path = write(tmp_path / f"a.{extension}", [record(1), record(2)])
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert [q.error for q in read_all(data_config(path))] == ["", ""]


def test_nested_fields_are_reached_by_a_dotted_path(tmp_path: Path) -> None:
    records = [{"meta": {"id": i}, "q": {"text": f"{i}?", "ways": [f"{i}!"]}, "a": ["x"]} for i in range(3)]
    fields = {"id": "meta.id", "question": "q.text", "paraphrases": "q.ways", "answers": "a"}
    for extension in FORMATS:
        path = write(tmp_path / f"a.{extension}", records)
        questions = read_all(data_config(path, fields=fields))
        assert [(q.source_id, q.question, q.paraphrases) for q in questions] == [
            (str(i), f"{i}?", (f"{i}!",)) for i in range(3)
        ]


def test_a_key_spelled_with_a_dot_is_found(tmp_path: Path) -> None:
    records = [record(i, **{"question": ..., "q.text": f"{i}?"}) for i in range(3)]
    for extension in FORMATS:
        path = write(tmp_path / f"a.{extension}", records)
        questions = read_all(data_config(path, fields={"question": "q.text"}))
        assert [q.question for q in questions] == ["0?", "1?", "2?"]


@pytest.mark.parametrize(
    "text", ['[\n {"id": 1},\n {"id": 2}\n]\n', '[{"id": 1}]', '[ {"id": 1},\n{"id": 2}]']
)
def test_an_array_named_jsonl_says_to_set_format_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=r"a\.jsonl.*Set data\.format: json,"):
        scan(data_config(path))


def test_json_lines_named_json_say_to_set_format_jsonl(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [record(1), record(2)]).rename(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"a\.json.*Set data\.format: jsonl"):
        scan(data_config(path))
    assert len(read_all(data_config(path, format="jsonl"))) == 2


@pytest.mark.parametrize("text", ["", "{", '{"data": []}', '"x"', "[1,", "[" * 5000])
def test_a_json_file_that_is_no_array_is_a_data_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"a\.json: "):
        scan(data_config(path))


def test_a_json_file_that_is_not_utf8_is_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'["\xff"]')
    with pytest.raises(DataError, match="not UTF-8"):
        scan(data_config(path))


def test_a_record_of_a_json_file_that_is_not_utf8_is_an_error_row(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    texts = [json.dumps(record(i)) for i in range(3)]
    texts[1] = texts[1].replace("1 is what?", "caf\udce9?")
    path.write_bytes(f"[{', '.join(texts)}]".encode("utf-8", "surrogateescape"))
    first, bad, last = read_all(data_config(path))
    assert (first.source_id, last.source_id, first.error, last.error) == ("q0", "q2", "", "")
    assert "a.json, row 2, field '(record)': the record is not UTF-8" in bad.error
    assert "caf" in bad.error
    path.write_text("x", encoding="utf-16")
    with pytest.raises(DataError, match=r"a\.json: is not UTF-8 \(byte 1\)"):
        scan(data_config(path))


@pytest.mark.parametrize("keep", [0, 10, 400])
def test_a_damaged_parquet_file_is_a_data_error(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "a.parquet", [record(i) for i in range(9)])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read as Parquet"):
        scan(data_config(path))


def test_a_damaged_parquet_page_is_a_data_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [record(i) for i in range(9)])
    data = path.read_bytes()
    path.write_bytes(data[:4] + b"\xff" * 300 + data[304:])
    with pytest.raises(DataError, match=r"a\.parquet"):
        scan(data_config(path))


def test_parquet_text_that_is_not_utf8_is_a_row_fault(tmp_path: Path) -> None:
    def column(*values: bytes) -> pa.Array:
        return pa.array(values, pa.binary()).view(pa.string())

    table = pa.table(
        {
            "id": column(b"a", b"b", b"\xff", b"d"),
            "question": column(b"?", b"\xff", b"?", b"?"),
            "paraphrases": pa.ListArray.from_arrays([0, 1, 2, 3, 5], column(b"p", b"p", b"p", b"p", b"\xff")),
            "answers": [["x"]] * 4,
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    questions = read_all(data_config(tmp_path / "a.parquet"))
    assert [bool(q.error) for q in questions] == [False, True, True, True]
    assert "row 2, field 'question'" in questions[1].error
    assert questions[1].paraphrases == ("p",)
    assert questions[2].row_id.startswith("d/test/!")
    assert questions[3].paraphrases == ("p",)
