"""Data sets by their name on the hub (one on loopback), read through the Arrow files of `datasets`."""

import json
import shutil
import sys
from pathlib import Path

import datasets.config
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, load_dataset
from huggingface_hub import constants

from flexray.config import DataConfig, parse_config
from flexray.config.data import HubDataSet
from flexray.data import list_files, list_ranges, read_range, scan
from flexray.data.hub import _arrow_files, download_data_set
from flexray.errors import ConfigError, DataError
from tests.hub import FakeHub
from tests.unit.data.conftest import data_config, read_all, record, write

NAME = "someone/questions"
REPO = f"datasets/{NAME}"
ROWS = [record(i) for i in range(25)]
TWO_CONFIGS = """---
configs:
- {config_name: easy, data_files: [{split: test, path: easy/test-*}]}
- {config_name: hard, data_files: [{split: test, path: hard/test-*}]}
---
"""


def hub_config(hub: str | dict, **settings: object) -> DataConfig:
    tree = {"output": "out", "model": {"path": "m"}, "data": {"name": "d", "hub": hub} | settings}
    return parse_config(tree, source="test").data


def brought(hub: str | dict) -> None:
    download_data_set(HubDataSet.model_validate(hub))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "data" / "test-00000-of-00002.parquet", ROWS[:10])
    write(tmp_path / "data" / "test-00001-of-00002.parquet", ROWS[10:])
    write(tmp_path / "data" / "train-00000-of-00001.parquet", ROWS[:3])
    return tmp_path


def test_rows_are_those_that_datasets_loads_and_are_known_by_commit_split_and_row(
    hub: FakeHub, folder: Path
) -> None:
    commit = hub.push(REPO, folder)
    brought(NAME)
    hub.asked.clear()
    hub.served.clear()
    questions = read_all(hub_config(NAME))
    theirs = load_dataset(str(folder), split="test").to_list()
    assert [(q.source_id, q.question, list(q.paraphrases)) for q in questions] == [
        (row["id"], row["question"], row["paraphrases"]) for row in theirs
    ]
    assert {q.source_file for q in questions} == {f"hf://datasets/{NAME}@{commit}/default/test"}
    assert [q.source_row for q in questions] == list(range(1, 26))
    assert (hub.asked, hub.served) == ([], [])
    same = scan(data_config(write(folder / "b.jsonl", ROWS)))
    assert scan(hub_config(NAME)).drop_columns("source_file").equals(same.drop_columns("source_file"))


def test_rows_are_numbered_through_all_arrow_files_of_a_split(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "MAX_SHARD_SIZE", "1KB")
    monkeypatch.setattr(datasets.config, "DEFAULT_MAX_BATCH_SIZE", 4)
    hub.push(REPO, folder)
    brought(NAME)
    config = hub_config(NAME)
    questions = read_all(config)
    assert [(q.source_row, q.source_id) for q in questions] == [(i + 1, f"q{i}") for i in range(25)]
    arrow = list(Path(datasets.config.HF_DATASETS_CACHE).rglob("*-test*.arrow"))
    assert len(arrow) > 1, arrow


def test_another_split_and_a_configuration_are_read_by_their_names(hub: FakeHub, tmp_path: Path) -> None:
    write(tmp_path / "easy" / "test-00000-of-00001.parquet", ROWS[:2])
    write(tmp_path / "hard" / "test-00000-of-00001.parquet", ROWS[2:7])
    (tmp_path / "README.md").write_text(TWO_CONFIGS)
    hub.push(REPO, tmp_path)
    brought(NAME)
    assert len(read_all(hub_config({"name": NAME, "config": "hard"}))) == 5
    for config, said in (
        (None, "Config name is missing.*'easy', 'hard'"),
        ("odd", "config odd: .*'odd' not found.*'easy', 'hard'"),
    ):
        with pytest.raises(ConfigError, match=rf"data\.hub: {NAME}@main, .*{said}"):
            scan(hub_config({"name": NAME, "config": config}))


def test_the_split_is_the_hubs_own_or_that_of_the_data_set(hub: FakeHub, folder: Path) -> None:
    hub.push(REPO, folder)
    brought(NAME)
    questions = read_all(hub_config({"name": NAME, "split": "train"}))
    assert [q.row_id for q in questions] == ["d/test/q0", "d/test/q1", "d/test/q2"]
    assert len(read_all(hub_config(NAME, split="train"))) == 3
    with pytest.raises(DataError, match=r"no split 'dev'.*found: 'train', 'test'.*data\.hub\.split"):
        scan(hub_config(NAME, split="dev"))


def test_files_of_json_lines_are_read_too(hub: FakeHub, tmp_path: Path) -> None:
    popqa = [
        {"id": i, "question": f"Who is {i}?", "possible_answers": json.dumps([f"a{i}", "b"])}
        for i in range(5)
    ]
    write(tmp_path / "test.jsonl", popqa)
    hub.push(REPO, tmp_path)
    brought(NAME)
    fields = {"paraphrases": None, "answers": "possible_answers"}
    questions = read_all(hub_config(NAME, fields=fields, include_question=True))
    assert [(q.source_id, q.answers, q.error) for q in questions] == [
        (str(i), (f"a{i}", "b"), "") for i in range(5)
    ]


def test_the_kinds_of_published_data_sets_read_it(hub: FakeHub, tmp_path: Path) -> None:
    rows = [{"url": "u", "question": f"Who is {i}?", "answers": [f"a{i}"]} for i in range(4)]
    Dataset.from_list(rows).to_parquet(tmp_path / "test-00000-of-00001.parquet")
    hub.push(REPO, tmp_path)
    brought(NAME)
    ours = [(q.question, q.answers, q.paraphrases, q.error) for q in read_all(hub_config(NAME, kind="webqa"))]
    files = data_config(tmp_path / "test-00000-of-00001.parquet", kind="webqa")
    assert ours == [(q.question, q.answers, q.paraphrases, q.error) for q in read_all(files)]
    assert len(ours) == 4


def test_faults_name_data_set_split_row_and_field(hub: FakeHub, tmp_path: Path) -> None:
    write(tmp_path / "test-00000-of-00001.parquet", [*ROWS[:3], record(3, question=" ")])
    commit = hub.push(REPO, tmp_path)
    brought(NAME)
    where = f"hf://datasets/{NAME}@{commit}/default/test"
    *good, bad = read_all(hub_config(NAME))
    assert [q.error for q in good] == ["", "", ""]
    assert bad.error.startswith(f"{where}, row 4, field 'question': ")
    with pytest.raises(DataError, match=rf"^{where}: .*no record has the field 'ask'"):
        scan(hub_config(NAME, fields={"question": "ask"}))


def test_what_the_cache_lacks_is_an_error_with_the_command_that_brings_it(hub: FakeHub, folder: Path) -> None:
    commit = hub.push(REPO, folder)

    def refusal(source: str | dict) -> str:
        with pytest.raises(ConfigError) as e:
            list_files(hub_config(source))
        return str(e.value)

    command = f"hf download {NAME} --repo-type dataset --revision"
    message = refusal(NAME)
    assert f"{command} main (" in message
    assert f"is not in this machine's cache, {constants.HF_HUB_CACHE}" in message
    assert hub.asked == []
    brought(NAME)
    assert f"{command} v2 (" in refusal({"name": NAME, "revision": "v2"})
    assert f"{command} v2 (" in refusal(f"{NAME}@v2")
    list_files(hub_config(f"{NAME}@{commit}"))
    (part,) = Path(constants.HF_HUB_CACHE).rglob("test-00001-of-00002.parquet")
    part.unlink()
    assert "is not complete in" in refusal(NAME)
    for trees in Path(constants.HF_HUB_CACHE).rglob("trees"):  # what other releases of the client do not keep
        trees.rename(trees.with_name("x"))
    assert "is not complete in" in refusal(NAME)


def test_a_data_set_that_code_makes_is_refused_by_name(hub: FakeHub, folder: Path) -> None:
    hub.push(REPO, folder, questions__py=b"raise SystemExit")
    with pytest.raises(ConfigError, match=rf"{NAME}@main: its rows are made by code, questions\.py"):
        brought(NAME)
    assert hub.served == []
    hub.push(REPO, folder)
    brought(NAME)
    (data,) = Path(constants.HF_HUB_CACHE).rglob("data")
    (data.parent / "questions.py").write_text("raise SystemExit")
    with pytest.raises(ConfigError, match=r"made by code, questions\.py, which is not run"):
        scan(hub_config(NAME))


@pytest.mark.parametrize("way", ["/", "../" * 20, "file:///", "{endpoint}/"])
def test_a_card_that_names_files_outside_of_the_repository_is_refused(
    hub: FakeHub, tmp_path: Path, way: str
) -> None:
    path = way.format(endpoint=hub.endpoint) + str(write(tmp_path / "outside.jsonl", ROWS))[1:]
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "README.md").write_text(TWO_CONFIGS.replace("easy/test-*", path))
    write(tmp_path / "repo" / "hard" / "test-0.jsonl", ROWS)
    hub.push(REPO, tmp_path / "repo")
    brought(NAME)
    hub.asked.clear()
    with pytest.raises(ConfigError, match=r"its README\.md names '.*outside\.jsonl', which is not a file of"):
        scan(hub_config({"name": NAME, "config": "easy"}))
    assert hub.asked == []


def test_files_of_other_kinds_are_refused_and_neither_code_nor_pickles_are_downloaded(
    hub: FakeHub, folder: Path
) -> None:
    hub.push(REPO, folder, load__py=b"1/0", more__pkl=b"x", train__tar=b"x")
    brought(NAME)
    assert sorted(Path(name).suffix for name in hub.served) == [".parquet"] * 3


def test_a_folder_of_that_name_wins(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.push(REPO, tmp_path)
    parts = {"train": Dataset.from_list(ROWS[:5]), "test": Dataset.from_list(ROWS[5:])}
    DatasetDict(parts).save_to_disk(tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    brought(NAME)
    assert len(read_all(hub_config(NAME))) == 20
    assert len(read_all(hub_config({"name": str(tmp_path / NAME), "split": "train"}))) == 5
    assert hub.asked == []
    for key in ("revision", "config"):
        with pytest.raises(ConfigError, match=rf"data\.hub\.{key}: {NAME} is a folder, which has none"):
            scan(hub_config({"name": NAME, key: "main"}))


def test_rows_are_read_where_the_arrow_files_are_not_yet_made(hub: FakeHub, folder: Path) -> None:
    hub.push(REPO, folder)
    brought(NAME)
    config = hub_config(NAME)
    [part] = list_ranges(config)
    shutil.rmtree(datasets.config.HF_DATASETS_CACHE)
    _arrow_files.cache_clear()  # as in another process
    assert pa.concat_tables(read_range(config, part)).equals(scan(config))


def test_without_the_package_it_says_what_to_install(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push(REPO, folder)
    brought(NAME)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"the package datasets is needed.*pip install 'flexray\[hub\]'"):
        scan(hub_config(NAME))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "files: no file is named"),
        ({"files": "a.jsonl", "hub": NAME}, "files and hub: give one of them"),
        ({"hub": NAME, "format": "jsonl"}, "format: a data set of the hub says itself"),
        ({"hub": {"name": NAME, "trust_remote_code": True}}, "trust_remote_code"),
        ({"hub": {"name": NAME, "split": "train[:5]"}}, "data.hub.split"),
    ],
)
def test_wrong_keys_are_refused_by_their_names(data: dict, said: str) -> None:
    tree = {"output": "out", "model": {"path": "m"}, "data": {"name": "d"} | data}
    with pytest.raises(ConfigError) as e:
        parse_config(tree, source="test")
    assert said in str(e.value)


@pytest.mark.parametrize("name", ["questions", "/no/such/folder", "a/b/c"])
def test_what_is_neither_a_folder_nor_a_name_is_refused_as_that(hub: FakeHub, name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"data\.hub: {name}@main: no such folder, and no name of a data set"
    ):
        list_files(hub_config(name))
