"""Any cut of a data set gives the same rows, with the same numbers, faults and errors."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexray.config import DataConfig
from flexray.data import check_files, check_summaries, list_ranges, read_range, scan, source_versions
from flexray.errors import DataError
from tests.unit.data.conftest import data_config, read_in_parts, record, write
from tests.unit.data.published import PATTERNS, fact, pararel

TARGETS = [1, 100, 150, 399, 400, 1000, 2**20]
LONG = json.dumps(record(50, question="long " * 200)).encode()
LINES = [json.dumps(record(i)).encode() for i in range(9)]
TEXTS = {
    "plain": b"\n".join(LINES) + b"\n",
    "no newline at the end": b"\n".join(LINES),
    "CRLF": b"\r\n".join(LINES) + b"\r\n",
    "byte order mark": b"\xef\xbb\xbf" + b"\n".join(LINES),
    "only a byte order mark in the first line": b"\xef\xbb\xbf\n" + b"\n".join(LINES),
    "blank lines": b"\n \n\t\n" + b"\n\n \r\n".join(LINES) + b"\n" * 300 + LINES[0] + b"\n  ",
    "a long line": b"\n".join([*LINES[:2], LONG, *LINES[2:], LONG]),
    "faults": b"\n".join([LINES[0], b"{", LINES[1], b"\xff", LINES[0], b"[]", b'{"id": "x"}', LINES[0]]),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_json_lines_are_cut_at_line_ends_and_numbered_through(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(text)
    config = data_config(path)
    whole = scan(config)
    there = [line for line in text.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
    assert whole["source_row"].to_pylist() == list(range(1, len(there) + 1))
    for target in TARGETS:
        parts = list_ranges(config, target)
        assert read_in_parts(config, target).equals(whole)
        counts = [sum(map(len, read_range(config, part))) for part in parts]
        assert [part.num_rows for part in parts] in ([None], counts)
        if target == 1:
            assert counts == [1] * len(there)


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.sampled_from([*LINES[:3], LONG, b"", b" \t", b"\r", b"\x0b", b"{", b"7"]), max_size=12),
    end=st.sampled_from([b"\n", b"\r\n"]),
    target=st.integers(1, 600),
    limit=st.none() | st.integers(1, 9),
)
def test_any_lines_in_any_cut_are_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], end: bytes, target: int, limit: int | None
) -> None:
    path = tmp_path_factory.mktemp("x") / "a.jsonl"
    path.write_bytes(end.join([LINES[8], *lines]))
    config = data_config(path, limit=limit)
    assert read_in_parts(config, target).equals(scan(config))


@pytest.mark.parametrize("extension", ["parquet", "arrow", "json"])
@pytest.mark.parametrize("target", TARGETS)
def test_row_groups_and_batches_are_cut_and_numbered_through(
    tmp_path: Path, extension: str, target: int
) -> None:
    rows = [record(i) for i in range(25)]
    path = tmp_path / f"a.{extension}"
    if extension == "arrow":
        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
    else:
        write(path, rows, row_group_size=4)
    config = data_config(path)
    parts = list_ranges(config, target)
    table = read_in_parts(config, target)
    assert table.equals(scan(config))
    assert table["source_row"].to_pylist() == list(range(1, 26))
    assert len(parts) == (7 if target == 1 and extension != "json" else len(parts))
    assert (len(parts) == 1) == (extension == "json" or path.stat().st_size <= target)


@pytest.mark.parametrize("limit", [1, 3, 5, 6, 9, 11, 12, 20, 99])
@pytest.mark.parametrize("target", [1, 300, 2**20])
def test_a_limit_takes_the_first_rows_of_all_files(tmp_path: Path, limit: int, target: int) -> None:
    for number, extension in enumerate(("jsonl", "json", "parquet", "jsonl")):
        rows = [record(i, id=f"{number}-{i}") for i in range(5)]
        write(tmp_path / f"{number}.{extension}", rows, row_group_size=2)
    everything = scan(data_config(tmp_path / "*"))
    config = data_config(tmp_path / "*", limit=limit)
    assert read_in_parts(config, target).equals(everything.slice(0, limit).combine_chunks())
    assert scan(config).equals(everything.slice(0, limit))


def test_a_file_that_grew_shorter_after_the_list_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [record(i) for i in range(9)])
    config = data_config(path)
    *_, last = list_ranges(config, 200)
    path.write_bytes(path.read_bytes()[: last.start])
    with pytest.raises(DataError, match=r"a\.jsonl: was changed while it was read: .* Start again\."):
        list(read_range(config, last))


def judge(config: DataConfig, target: int) -> None:
    """Read in parts, and judge them together."""
    summaries = []
    for part in list_ranges(config, target):
        reader = read_range(config, part)
        list(reader)
        summaries.append(reader.summary)
    check_files(summaries)
    check_summaries(config, summaries)


@pytest.mark.parametrize(
    ("lines", "settings"),
    [
        ([{"qId": i, "k" * (i + 1): 1} for i in range(3)], {}),
        ([{f"k{i}": 1} for i in range(60)], {}),
        ([record(i, answers=...) for i in range(5)], {}),
        ([record(i, q={"text": 1}) for i in range(5)], {"fields": {"relation": "q.group"}}),
        (["hello", 7, [1], None], {}),
        ([], {}),
    ],
)
def test_parts_together_are_judged_like_the_whole(
    tmp_path: Path, lines: list[Any], settings: dict[str, Any]
) -> None:
    config = data_config(write(tmp_path / "a.jsonl", lines), **settings)
    with pytest.raises(DataError) as whole:
        scan(config)
    for target in (1, 50, 10_000):
        with pytest.raises(DataError) as parts:
            judge(config, target)
        assert str(parts.value) == str(whole.value)


def test_a_field_that_one_part_has_is_enough_for_the_file(tmp_path: Path) -> None:
    rows = [record(i, answers=...) for i in range(5)] + [record(5, paraphrases=...)]
    config = data_config(write(tmp_path / "a.jsonl", rows))
    judge(config, 1)
    with pytest.raises(DataError, match="no record has the field 'answers'"):
        judge(config.model_copy(update={"limit": 5}), 1)


def test_joined_files_must_have_a_row_of_some_part(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [record(i) for i in range(5)])
    for joined, matches in (("q4", True), ("w4", False)):
        more = write(tmp_path / "more.jsonl", [{"id": joined, "paraphrases": ["x"]}])
        config = data_config(path, paraphrase_files=str(more))
        if matches:
            judge(config, 1)
        else:
            with pytest.raises(DataError, match=r"rows have 'q0', 'q1', 'q2'; the file has 'w4'\."):
                judge(config, 1)


def test_the_versions_change_with_a_file_or_the_configuration_and_with_nothing_else(tmp_path: Path) -> None:
    config = pararel(tmp_path, {"P19": PATTERNS}, {"P19": [fact(1)]})
    more = write(tmp_path / "more.jsonl", [{"id": "u1", "paraphrases": ["x"]}])
    config = config.model_copy(update={"paraphrase_files": (str(more),)})
    before = source_versions(config)
    assert (len(before), source_versions(config)) == (64, before)
    write(tmp_path / "elsewhere.jsonl", [])
    assert source_versions(config) == before
    assert source_versions(config.model_copy(update={"limit": 5})) != before
    assert source_versions(config.model_copy(update={"name": "e"})) != before
    for file in (more, *tmp_path.glob("*/P19.jsonl")):
        stat = file.stat()
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
        before, earlier = source_versions(config), before
        assert before != earlier
        assert source_versions(config) == before
    (tmp_path / "facts" / "P20.jsonl").write_text(json.dumps(fact(2)))
    assert source_versions(config) != before
