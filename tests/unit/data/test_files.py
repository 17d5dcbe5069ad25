import json
from pathlib import Path

import fsspec
import pytest

from flexray.data import list_files
from flexray.data.files import SourceFile
from flexray.types import DataError
from tests.unit.data.conftest import data_config, read_all, record, write


def test_files_are_sorted_and_named_once_whatever_the_configuration_says(tmp_path: Path) -> None:
    b, a = write(tmp_path / "b.jsonl", [record(1)]), write(tmp_path / "a.json", [record(2)])
    listed = list_files(data_config([b, tmp_path / "*.json*", a, f"file://{a}"]))
    assert listed == [SourceFile(str(a), "json"), SourceFile(str(b), "jsonl")]


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.ndjson.jsonl", [record(1)])
    monkeypatch.chdir(tmp_path)
    assert list_files(data_config("a.ndjson.jsonl"))[0].path == str(path)


def test_a_name_with_glob_characters_is_read_as_a_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a[1].jsonl", [record(1)])
    assert [q.source_file for q in read_all(data_config(path))] == [str(path)]


def test_memory_urls_and_globs_are_read() -> None:
    for name in ("b", "a"):
        with fsspec.open(f"memory://urls/{name}.jsonl", "w") as f:
            f.write(json.dumps(record(1, id=name)))
    for files in ("memory://urls/*.jsonl", ["memory://urls/a.jsonl", "memory://urls/b.jsonl"]):
        questions = read_all(data_config(files))
        assert [q.row_id for q in questions] == ["d/test/a", "d/test/b"]
        assert questions[0].source_file == "memory:///urls/a.jsonl"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nothing.jsonl", "no such file"),
        ("no*.jsonl", "no file matches"),
        ("folder", "a folder, not a file"),
        ("x.txt", "'.txt' does not tell the format"),
        ("x.jsonl.gz", "compressed files are not read"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "x.txt").write_text("{}")
    (tmp_path / "x.jsonl.gz").write_text("{}")
    with pytest.raises(DataError, match=problem) as e:
        list_files(data_config(tmp_path / name))
    assert name in str(e.value)


def test_an_unknown_protocol_is_a_data_error() -> None:
    with pytest.raises(DataError, match="nowhere://x"):
        list_files(data_config("nowhere://x/a.jsonl"))
