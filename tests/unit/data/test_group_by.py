"""Rows whose records are spread over several files: how often these are asked for, and where rows stand."""

from collections import Counter
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from flexray.config import DataConfig
from flexray.data import scan, source_versions
from tests.unit.data.conftest import data_config, read_all, write
from tests.unit.data.published import HUB_MYRIAD

FILES = 6


def spread(folder: Path, rows: list[dict[str, object]] = HUB_MYRIAD) -> DataConfig:
    for number in range(FILES):
        write(folder / f"{number}.jsonl", rows[number::FILES])
    return data_config(folder / "*.jsonl", kind="myriadlama")


def test_the_files_are_listed_once_and_each_is_asked_once_for_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()
    for name in ("ls", "ukey"):
        whole = getattr(LocalFileSystem, name)

        def counted(self, path, *args, name=name, whole=whole, **kwargs):
            asked[name] += 1
            return whole(self, path, *args, **kwargs)

        monkeypatch.setattr(LocalFileSystem, name, counted)
    config = spread(tmp_path)
    assert len(scan(config)) == 4
    assert asked == {"ls": 1}
    source_versions(config)
    assert asked == {"ls": 2, "ukey": FILES}


def test_a_repeated_row_names_the_place_of_the_first(tmp_path: Path) -> None:
    without_id = HUB_MYRIAD[4] | {"uuid": None}
    rows = [*HUB_MYRIAD[:4], without_id, without_id]
    questions = read_all(data_config(write(tmp_path / "a.jsonl", rows), kind="myriadlama"))
    assert [q.source_row for q in questions] == [1, 3, 5, 6]
    assert "a.jsonl, row 5" in questions[3].error


def test_a_key_that_is_there_twice_in_a_later_record_is_the_rows_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", HUB_MYRIAD)
    lines = path.read_text().splitlines()
    lines[1] = lines[1][:-1] + ', "template": "[X] is [Y]"}'
    path.write_text("\n".join(lines))
    first, *others = read_all(data_config(path, kind="myriadlama"))
    assert f"field 'template of {path}, row 2': the key is repeated" in first.error
    assert not any(question.error for question in others)
