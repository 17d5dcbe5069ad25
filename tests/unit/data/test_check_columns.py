"""Records that are checked column by column become the same rows as records that are checked one by one."""

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexray.config import DataConfig
from flexray.data import scan
from flexray.data.source import Source
from flexray.errors import DataError
from tests.nasty_rows import FIELDS, NastyFile, json_files, parquet_files
from tests.unit.data.conftest import data_config, read_all, record, write

MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
WITHOUT: dict[str, Any] = {"relation": None, "num_manual": None, "confidences": None}
_without = st.sets(st.sampled_from([*WITHOUT, "answers"])).map(dict.fromkeys)
ROLES = {
    "without": _without,
    "relation": st.sampled_from(["meta.relation", "id"]),
    "candidates": st.sampled_from([None, "answers", "paraphrases", "meta.relation"]),
}


def one_by_one(config: DataConfig) -> pa.Table | str:
    """What `scan` gives without columns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Source, "_columns", lambda *_: None)
        return scanned(config)


def scanned(config: DataConfig) -> pa.Table | str:
    try:
        return scan(config)
    except DataError as e:
        return str(e)


def assert_same(file: NastyFile, fields: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = data_config(file.write(Path(folder)), fields=fields, **file.settings)
        found, expected = scanned(config), one_by_one(config)
        assert type(found) is type(expected)
        assert found == expected if isinstance(found, str) else found.to_pylist() == expected.to_pylist()


@MANY
@given(file=json_files(max_rows=8), **ROLES)
def test_records_of_json(
    file: NastyFile, without: dict[str, Any], relation: str, candidates: str | None
) -> None:
    assert_same(file, FIELDS | {"relation": relation, "candidates": candidates} | without)


@MANY
@given(file=parquet_files(max_rows=8), **ROLES)
def test_records_of_parquet(
    file: NastyFile, without: dict[str, Any], relation: str, candidates: str | None
) -> None:
    assert_same(file, FIELDS | {"relation": relation, "candidates": candidates} | without)


def test_white_space_is_what_python_takes_for_it(tmp_path: Path) -> None:
    """In each text: every character that is white space somewhere, alone and among others."""
    texts = [chr(i) for i in range(0x10000) if chr(i).isspace() or chr(i) in "\0\ufeff\u200b\u180e\u2060"]
    texts += [f"{text}x" for text in texts] + ["".join(texts[:5])]
    rows = [record(i, question=text, paraphrases=["ok", text]) for i, text in enumerate(texts)]
    for extension in ("jsonl", "parquet"):
        path = write(tmp_path / f"a.{extension}", [record("good"), *rows])
        questions = read_all(data_config(path))[1:]
        assert [bool(q.error) for q in questions] == [not text.strip() for text in texts]
        assert one_by_one(data_config(path)).equals(scan(data_config(path)))


TYPES = {
    "whole numbers as ids": {"id": pa.array([3, 2**62, None], pa.int64())},
    "no sign": {"id": pa.array([3, 2**64 - 1, None], pa.uint64())},
    "large text": {"id": pa.array(["a", "b", None], pa.large_string())},
    "dictionary": {"question": pa.array(["a?", "b?", None]).dictionary_encode()},
    "lists of large text": {"paraphrases": pa.array([["a"], ["b", None], None], pa.list_(pa.large_string()))},
    "large lists": {"answers": pa.array([["a"], [], None], pa.large_list(pa.string()))},
    "lists of one size": {"answers": pa.array([["a"], ["b"], None], pa.list_(pa.string(), 1))},
    "one answer": {"answers": pa.array(["a", "[b]", None])},
    "lists as JSON": {"answers": pa.array(['["a", "b"]', '["a", 7]', "[]"])},
    "paraphrases as JSON": {"paraphrases": pa.array([' ["a"]', "a", None])},
    "halves of floats": {"confidences": pa.array([[0.1, 0.2], [0.5], None], pa.list_(pa.float32()))},
    "shares as whole numbers": {"confidences": pa.array([[0, 1], [2, 1], [1, None]], pa.list_(pa.int8()))},
    "truth as shares": {"confidences": pa.array([[True, False], [True], None])},
    "small counts": {"num_manual": pa.array([1, 9, -1], pa.int8())},
    "large counts": {"num_manual": pa.array([1, 2**40, 2**64 - 1], pa.uint64())},
    "fractions as counts": {"num_manual": pa.array([1.0, 2.0, None])},
    "numbers as groups": {"relation": pa.array([1, 2, None])},
}


@pytest.mark.parametrize("columns", TYPES.values(), ids=list(TYPES))
@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_columns_of_other_types(tmp_path: Path, columns: dict[str, pa.Array], format_: str) -> None:
    good = {
        "id": pa.array(["x", "y", "z"]),
        "question": pa.array(["a?", "b?", "c?"]),
        "paraphrases": pa.array([["a", "b"], ["c", "d"], ["e", "f"]]),
        "answers": pa.array([["a"], ["b"], ["c"]]),
        "relation": pa.array(["r", " ", None]),
        "num_manual": pa.array([0, 1, 5]),
        "confidences": pa.array([[0.5, 1.0], [0.0, 0.5], [1.5, 0.5]]),
    }
    path, table = tmp_path / f"a.{format_}", pa.table(good | columns)
    if format_ == "parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table)
    for settings_ in ({}, {"include_question": True}, {"max_paraphrases": 1}):
        config = data_config(path, fields={name: name for name in good}, **settings_)
        assert scan(config).to_pylist() == one_by_one(config).to_pylist()
