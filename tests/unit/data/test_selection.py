"""Rows of listed ids, a share of all rows, and so many of them."""

import gzip
import logging
from pathlib import Path

import pytest

from flexray.data import scan, source_versions
from flexray.errors import DataError
from tests.unit.data.conftest import data_config, read_all, record, write

RECORDS = [record(i) for i in range(400)]


def ids_of(path: Path, **keys: object) -> list[str]:
    return scan(data_config(path, **keys))["source_id"].to_pylist()


def test_a_share_grows_with_its_size_and_does_not_depend_on_the_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", RECORDS)
    tenth, half = ids_of(path, sample=0.1), ids_of(path, sample=0.5)
    assert 20 <= len(tenth) <= 60
    assert 160 <= len(half) <= 240
    assert set(tenth) < set(half)
    some = data_config(write(tmp_path / "some.jsonl", RECORDS[:40]), sample=0.1)
    assert [q.source_id for q in read_all(some)] == [f"q{i}" for i in range(40) if f"q{i}" in tenth]
    assert ids_of(path, sample=1.0) == ids_of(path)
    assert ids_of(path, sample=0.1, sample_seed=1) != tenth
    turned = write(tmp_path / "b.parquet", [*reversed(RECORDS), record(1000)])
    assert set(tenth) <= set(ids_of(turned, sample=0.1)) <= {*tenth, "q1000"}


def test_listed_ids_are_asked_and_missing_ones_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.jsonl", [*RECORDS[:20], {"question": "no id"}])
    listed = tmp_path / "ids.txt.gz"
    listed.write_bytes(gzip.compress(b"\xef\xbb\xbfq7\r\n\nq3\nq7\nother\n"))
    config = data_config(path, ids=str(listed))
    before = source_versions(config)
    with caplog.at_level(logging.WARNING):
        assert [q.source_id for q in read_all(config)] == ["q3", "q7"]
        assert [q.source_row for q in read_all(config)] == [4, 8]
    assert "1 of 3 ids are those of no row: 'other'" in caplog.text
    listed.write_bytes(gzip.compress(b"nobody\n"))
    assert source_versions(config) != before
    with pytest.raises(DataError, match=r"ids\.txt\.gz: no row has any of these ids, such as 'nobody'"):
        scan(config)
    listed.write_bytes(gzip.compress(b"\n"))
    with pytest.raises(DataError, match=r"ids\.txt\.gz: has no id\. Write one a line"):
        scan(config)


def test_a_share_that_leaves_no_row_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", RECORDS[:2])
    with pytest.raises(DataError, match=r"no rows are left of 2\. Raise data\.sample"):
        scan(data_config(path, sample=1e-9))


def test_so_many_rows_are_drawn_by_id_and_seed_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", RECORDS)
    some = ids_of(path, sample_rows=25)
    assert len(some) == len(set(some)) == 25
    assert [q.source_id for q in read_all(data_config(path, sample_rows=25))] == some
    assert set(some) < set(ids_of(path, sample_rows=26)) < set(ids_of(path, sample=0.5))
    assert ids_of(path, sample_rows=25, sample_seed=1) != some
    turned = write(tmp_path / "b.parquet", list(reversed(RECORDS)))
    assert ids_of(turned, sample_rows=25) == some[::-1]
    assert ids_of(path, sample_rows=400) == ids_of(path, sample_rows=1000) == ids_of(path)
    first = ids_of(path, limit=10, sample_rows=3)
    assert len(first) == 3
    assert set(first) < {f"q{i}" for i in range(10)}


def test_with_more_data_others_may_be_drawn(tmp_path: Path) -> None:
    some = write(tmp_path / "some.jsonl", RECORDS[:200])
    before, after = ids_of(some, sample_rows=20), ids_of(write(tmp_path / "a.jsonl", RECORDS), sample_rows=20)
    assert len(after) == 20
    assert {i for i in after if int(i[1:]) < 200} < set(before)


def test_a_drawn_row_that_repeats_an_id_is_an_error_row_beside_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [*RECORDS[:50], *RECORDS[:50]])
    found = read_all(data_config(path, sample_rows=5))
    good = [q.row_id for q in found if not q.error]
    assert len(good) == 5
    assert [q.row_id for q in found if q.error] == [f"{row_id}#2" for row_id in good]


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_of_a_part_of_many_blocks_no_row_too_many_is_drawn(tmp_path: Path, count: int) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": f"q{i}", "question": "?"} for i in range(10_000)])
    config = data_config(
        path, sample_rows=count, include_question=True, fields={"paraphrases": None, "answers": None}
    )
    assert scan(config).num_rows == count
