"""CSV and TSV, compressed text, and JSON that is parsed piece by piece."""

import bz2
import csv
import gzip
import json
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from flexray.data import delimited, json_array, list_ranges, scan, text
from flexray.errors import DataError
from tests.unit.data.conftest import data_config, read_all, record, write

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}


def write_table(path: Path, records: list[dict[str, Any]]) -> Path:
    """CSV or TSV as pandas writes them, with lists as JSON text."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",", lineterminator="\n")
        rows.writerow(records[0])
        rows.writerows([v if isinstance(v, str) else json.dumps(v) for v in r.values()] for r in records)
    return path


RECORDS = [record(i, question=f'Who, "really",\tis\n{i}?') for i in range(5)]


@pytest.mark.parametrize("extension", ["csv", "tsv"])
def test_a_table_of_text_has_the_rows_of_json_lines(tmp_path: Path, extension: str) -> None:
    lines = scan(data_config(write(tmp_path / "a.jsonl", RECORDS)))
    path = write_table(tmp_path / f"a.{extension}", RECORDS)
    table = scan(data_config(path))
    assert table.drop_columns(["source_file"]).equals(lines.drop_columns(["source_file"]))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert [q.error for q in read_all(data_config(path))] == [""] * 5


def test_numbers_of_a_table_are_read_from_text(tmp_path: Path) -> None:
    rows = [record(i, manual=1, sure=[0.5, 1]) for i in range(2)]
    fields = {"num_manual": "manual", "confidences": "sure"}
    questions = read_all(data_config(write_table(tmp_path / "a.csv", rows), fields=fields))
    assert [(q.error, q.num_manual, q.confidences) for q in questions] == [("", 1, (0.5, 1.0))] * 2


def test_a_bad_row_of_a_table_is_an_error_row_and_the_others_are_read(tmp_path: Path) -> None:
    good = 'q{0},Who?,"[""a""]",b\n'
    lines = [
        "id,question,paraphrases,answers\n",
        good.format(1),
        'q2,Who?,"[""a""]"\n',
        "\n",
        'q3,"Who" is it?,[],b\n',
        good.format(4),
        'q5,Wh\xe9?,"[""a""]",b\n',
        good.format(6),
    ]
    path = tmp_path / "a.csv"
    path.write_bytes("".join(lines).encode("latin-1"))
    errors = [q.error for q in read_all(data_config(path))]
    assert [not error for error in errors] == [True, False, False, True, False, True]
    for row, words in ((2, "3 cells, but the header 4"), (3, "cannot be split into cells"), (5, "not UTF-8")):
        assert f"a.csv, row {row}" in errors[row - 1]
        assert words in errors[row - 1]


def test_a_quote_that_is_not_closed_is_told_with_its_row(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", RECORDS[:2])
    path.write_text(path.read_text() + 'q9,"Who\n')
    assert ["row 3" in q.error for q in read_all(data_config(path))] == [False, False, True]


@pytest.mark.parametrize("extension", ["csv", "tsv"])
@pytest.mark.parametrize("at", [0, 3, 8])
def test_a_quote_that_is_not_closed_takes_no_other_row_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str, at: int
) -> None:
    between = {"csv": ",", "tsv": "\t"}[extension]
    cells = [["id", "question", "answers"], *([f"q{i}", f"is it {i}?", f"a{i}"] for i in range(9))]
    cells[1 + at][1] = '"' + cells[1 + at][1]
    path = tmp_path / f"a.{extension}"
    path.write_text("".join(between.join(row) + "\n" for row in cells))
    for limit in (text.MAX_RECORD_BYTES, 40):  # it takes all lines up to the end, or up to the limit
        monkeypatch.setattr(delimited, "MAX_RECORD_BYTES", limit)
        rows = read_all(data_config(path, fields={"paraphrases": None}, include_question=True))
        assert [bool(q.error) for q in rows] == [i == at for i in range(9)]
        assert [q.answers for q in rows if not q.error] == [(f"a{i}",) for i in range(9) if i != at]
        assert ("line(s), which are read as rows of their own" in rows[at].error) == (at < 8)
    monkeypatch.undo()
    quoted = [record(i, question=f'is\n"it"\n{i}?') for i in range(9)]
    write_table(path, quoted)  # lines that a quote is to take
    assert [q.question for q in read_all(data_config(path))] == [r["question"] for r in quoted]


def test_a_cell_may_be_as_long_as_a_record(tmp_path: Path) -> None:
    many = record(1, paraphrases=[f"{'word ' * 9}{i}?" for i in range(4_000)])
    (question,) = read_all(data_config(write_table(tmp_path / "a.csv", [many])))
    assert (len(question.paraphrases), question.error) == (4_000, "")


@pytest.mark.parametrize(
    ("delimiter", "name"), [(";", "a.csv"), ("\t", "a.csv"), ("|", "a.csv"), (",", "a.tsv")]
)
def test_a_table_of_another_delimiter_is_read_by_it(tmp_path: Path, delimiter: str, name: str) -> None:
    with (tmp_path / name).open("w", newline="") as stream:
        rows = csv.writer(stream, delimiter=delimiter)
        rows.writerows([["id", "question", "paraphrases", "answers"], ["1", "a;b,c|d?", '["e"]', "f"]])
    (question,) = read_all(data_config(tmp_path / name))
    assert (question.question, question.answers, question.error) == ("a;b,c|d?", ("f",), "")


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("id,id,question", r"header has 'id' more than once.*'id', 'id', 'question'"),
        ("id question answers", "no record has the field .*one of: 'id question answers'"),
        ('"id"x,question', "the header cannot be read"),
    ],
)
def test_a_header_that_cannot_be_used_is_an_error(tmp_path: Path, header: str, problem: str) -> None:
    (tmp_path / "a.csv").write_text(f"{header}\n1\n{','.join('1' * (header.count(',') + 1))}\n")
    with pytest.raises(DataError, match=problem):
        scan(data_config(tmp_path / "a.csv"))


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("extension", ["jsonl", "json", "csv"])
def test_compressed_text_has_the_same_rows_and_is_not_cut(
    tmp_path: Path, extension: str, packing: str
) -> None:
    plain = tmp_path / f"a.{extension}"
    (write_table if extension == "csv" else write)(plain, RECORDS)
    packed = tmp_path / f"a.{extension}{packing}"
    half = len(plain.read_bytes()) // 2  # of two streams, as `cat` makes of two files
    packed.write_bytes(b"".join(PACK[packing](part) for part in _halves(plain.read_bytes(), half)))
    config = data_config(packed)
    assert len(list_ranges(config, 10)) == 1
    expected = scan(data_config(plain)).drop_columns(["source_file"])
    assert scan(config).drop_columns(["source_file"]).equals(expected)


def _halves(data: bytes, at: int) -> tuple[bytes, bytes]:
    return data[:at], data[at:]


@pytest.mark.parametrize("packing", PACK)
def test_a_compressed_file_that_is_cut_or_not_compressed_is_named(tmp_path: Path, packing: str) -> None:
    path = tmp_path / f"a.jsonl{packing}"
    data = write(tmp_path / "a.jsonl", [record(i, x=str(hash(str(i)))) for i in range(500)]).read_bytes()
    whole = PACK[packing](data)
    for damaged in (whole[: len(whole) // 2], whole[:-3], data):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"a\.jsonl\{packing}: .*cut off or damaged.*Copy the file"):
            scan(data_config(path))


@pytest.mark.parametrize("extension", ["jsonl", "json", "csv"])
def test_what_unpacks_to_an_endless_record_is_refused(
    tmp_path: Path, extension: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("text", "json_lines", "json_array", "delimited"):
        monkeypatch.setattr(f"flexray.data.{module}.MAX_RECORD_BYTES", 2**20)
    assert text.MAX_RECORD_BYTES == 2**20
    head = {"jsonl": b"", "json": b"[", "csv": b"id,question\n"}[extension]
    path = tmp_path / f"a.{extension}.gz"
    path.write_bytes(gzip.compress(head + b'"' + b" " * 2**24))
    with pytest.raises(DataError, match=r"row 1 does not end within 1 MiB"):
        scan(data_config(path))


def test_members_of_archives_are_read_also_where_they_are_compressed(tmp_path: Path) -> None:
    inside = tmp_path / "a.jsonl.gz"
    inside.write_bytes(gzip.compress(write(tmp_path / "a.jsonl", RECORDS).read_bytes()))
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as archive:
        for name in ("a.jsonl", "a.jsonl.gz"):
            archive.add(tmp_path / name, f"data/{name}")
    for member in ("data/a.jsonl", "data/a.jsonl.gz", "data/*.gz"):
        questions = read_all(data_config(f"tar://{member}::{tmp_path / 't.tar.gz'}"))
        assert [(q.source_id, q.error) for q in questions] == [(f"q{i}", "") for i in range(5)]


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_json_is_the_same_in_pieces_of_any_size(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [{"é": [1, {"a": "]}\\"}]}, {}, 12345, -1.5e3, None, "ü", [], {"n": 12}]
    monkeypatch.setattr(json_array, "_READ_BYTES", size)
    for indent in (None, 1):
        path = tmp_path / "a.json"
        path.write_text(json.dumps({"x": [0], "data": values, "y": 1}, indent=indent, ensure_ascii=False))
        blocks = list(json_array.read(str(path), "data"))
        found = [r for block in blocks for r in block.records(range(block.num_rows))]
        assert [r.value for r in found if r.value is not None] == [v for v in values if isinstance(v, dict)]
        assert [r.row for r in found] == list(range(1, len(values) + 1))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"data": [{}], "data": [{}]}', "the key 'data' is repeated"),
        ('[{"a": 1}, {"a" 2}]', "is not JSON at record 2"),
        ('[{"a": 1}] [', "more follows after its end"),
        ('[{"a": 1}', "it ends too early"),
        ('{"other": [{}]}', "an object whose key 'data' has an array is expected, found the keys 'other'"),
        (
            '{"version": 2, "Data": [{}]}',
            r"the keys 'version', 'Data' .if its form is triviaqa's, set data.kind",
        ),
    ],
)
def test_json_that_is_broken_or_has_no_array_is_an_error(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(DataError, match=problem):
        list(json_array.read(str(path), "data"))
