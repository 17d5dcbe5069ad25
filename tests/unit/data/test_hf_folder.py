"""Hugging Face data sets in a folder, as `datasets` writes them; nothing is asked of the hub."""

import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, load_from_disk
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from flexray.data import list_files, list_ranges, read_range, scan
from flexray.errors import DataError
from tests.unit.data.conftest import data_config, read_all, record, write

ROWS = [record(i) for i in range(25)]


def test_a_saved_data_set_is_read_as_datasets_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    Dataset.from_list(ROWS).select(range(24, -1, -2)).save_to_disk(folder, num_shards=3)
    questions = read_all(data_config(folder))
    theirs = load_from_disk(str(folder)).to_list()
    assert [(q.source_id, q.question, list(q.paraphrases), list(q.answers or ())) for q in questions] == [
        (r["id"], r["question"], r["paraphrases"], r["answers"]) for r in theirs
    ]
    assert {Path(q.source_file).suffix for q in questions} == {".arrow"}


def test_the_split_is_that_of_the_configuration(tmp_path: Path) -> None:
    parts = DatasetDict({"train": Dataset.from_list(ROWS[:5]), "test": Dataset.from_list(ROWS[5:])})
    parts.save_to_disk(tmp_path / "saved")
    assert len(read_all(data_config(tmp_path / "saved", split="train"))) == 5
    assert len(read_all(data_config(tmp_path / "saved"))) == 20
    with pytest.raises(DataError, match=r"this data set has no split 'dev'; found: 'train', 'test'"):
        scan(data_config(tmp_path / "saved", split="dev"))


@pytest.mark.parametrize(
    "name",
    ["test-00000-of-00001.parquet", "test.parquet", "data/test-00000-of-00001-ab.parquet", "test/0.parquet"],
)
def test_parquet_files_are_found_by_their_split(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, ROWS)
    write(tmp_path / name.replace("test", "testing"), ROWS[:2])
    (tmp_path / "README.md").write_text("card")
    config = data_config(tmp_path)
    assert [file.path for file in list_files(config)] == [str(tmp_path / name)]
    assert len(read_all(config)) == 25


def test_a_split_that_no_parquet_file_is_named_after_is_told(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train-00000-of-00001.parquet", ROWS)
    with pytest.raises(DataError, match=r"no split 'test'.*'train-00000-of-00001\.parquet'.*data\.split"):
        scan(data_config(tmp_path))


@pytest.mark.parametrize("name", ["test-{:05}-of-00003.parquet", "data/test-{:05}-of-00003-a1b2.parquet"])
def test_parts_of_a_split_that_are_not_there_are_named(tmp_path: Path, name: str) -> None:
    for number in (0, 2):
        write(tmp_path / name.format(number), ROWS)
    with pytest.raises(DataError, match=r"1 of 3 files are missing: test-00001-of-00003\.parquet\. Copy"):
        list_files(data_config(tmp_path))
    write(tmp_path / name.format(1), ROWS)
    assert len(list_files(data_config(tmp_path))) == 3


@pytest.mark.parametrize("text", ["{", "[]", '{"_data_files": [{}]}', '{"_data_files": [{"filename": 3}]}'])
def test_a_broken_index_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(DataError, match=r"state\.json: is not the index of a data set"):
        scan(data_config(tmp_path))


@pytest.mark.parametrize("stream", [True, False])
def test_arrow_files_are_read_in_parts(tmp_path: Path, stream: bool) -> None:
    path = tmp_path / "a.arrow"
    table = pa.Table.from_pylist([r | {"other": 1} for r in ROWS])
    writer = (pa.ipc.new_stream if stream else pa.ipc.new_file)(path, table.schema)
    with writer:
        writer.write_table(table, max_chunksize=3)
    config = data_config(path)
    questions = read_all(config)
    assert [(q.source_row, q.source_id, q.error) for q in questions] == [
        (i + 1, f"q{i}", "") for i in range(25)
    ]
    assert len(list_ranges(config, 100)) == 9
    same = scan(data_config(write(tmp_path / "b.jsonl", ROWS)))
    assert scan(config).drop_columns("source_file").equals(same.drop_columns("source_file"))


def test_an_arrow_file_that_is_damaged_gone_or_of_other_columns_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, pa.schema({"x": pa.int64()})) as writer:
        writer.write_table(pa.table({"x": [1]}))
    with pytest.raises(DataError, match=r"a\.arrow: no record has the field 'id'.*'x'"):
        scan(data_config(path))
    for damaged in (b"", b"hello, world, this is text", path.read_bytes()[:40]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.arrow: cannot be read"):
            scan(data_config(path))
    Dataset.from_list(ROWS[:9]).save_to_disk(tmp_path / "saved")
    config = data_config(tmp_path / "saved")
    [part] = list_ranges(config)
    Path(part.files[0].path).unlink()
    with pytest.raises(DataError, match=r"\.arrow: cannot be read: .*No such file"):
        list(read_range(config, part))


def test_the_hub_is_not_asked_when_it_is_offline() -> None:
    code = (
        "from flexray.config import DataConfig\n"
        "from flexray.data import scan\n"
        "scan(DataConfig(name='d', files='hf://datasets/nobody/nothing', kind='webqa'))\n"
    )
    env = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=100)
    assert "DataError: hf://datasets/nobody/nothing: cannot be listed: " in done.stderr
    assert "offline mode is enabled" in done.stderr


class Unsure(LocalFileSystem):
    """Fails when it is asked for some names; what is there it knows as fsspec's base class does."""

    protocol = "unsure"
    failures: tuple[str, ...] = ()  # ends of names
    exists, isdir = AbstractFileSystem.exists, AbstractFileSystem.isdir

    def info(self, path, **kwargs):
        if str(path).endswith(self.failures):
            raise PermissionError("not now")
        return super().info(path, **kwargs)


@pytest.fixture
def unsure(tmp_path: Path) -> str:
    """The URL of a saved data set, with a Parquet file beside it that is not its own."""
    fsspec.register_implementation("unsure", Unsure, clobber=True)
    DatasetDict({"test": Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "saved")
    write(tmp_path / "saved" / "test.parquet", ROWS[:2])
    return f"unsure://{tmp_path}/saved"


@pytest.mark.parametrize("name", ["saved", "dataset_dict.json", "state.json"])
def test_a_fault_is_not_taken_for_a_file_that_is_not_there(
    unsure: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(Unsure, "failures", (name,))
    with pytest.raises(DataError, match=rf"^{unsure}: cannot be listed: not now"):
        list_files(data_config(unsure))


@pytest.mark.parametrize("name", ["test", "data"])
def test_a_fault_is_not_taken_for_a_folder_that_is_not_there(
    unsure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "saved" / "dataset_dict.json").unlink()
    (tmp_path / "saved" / "test.parquet").unlink()
    monkeypatch.setattr(Unsure, "failures", (name,))
    with pytest.raises(DataError, match=rf"^{unsure}: cannot be listed: not now"):
        list_files(data_config(unsure))
