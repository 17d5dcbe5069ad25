"""S3 through s3fs, against moto's server on loopback; `test_s3_faults.py` has one that fails."""

from pathlib import Path

import pytest
from s3fs import S3FileSystem

from flexray.data import list_ranges, read_range, scan
from flexray.errors import DataError
from tests.faulty_s3 import FaultyS3
from tests.unit.data.conftest import data_config, read_all, record, write


def test_each_format_is_read_in_parts_and_a_shrunk_file_is_noticed(
    s3: FaultyS3, behind: S3FileSystem, bucket: str, tmp_path: Path
) -> None:
    for extension in ("json", "jsonl", "parquet"):
        rows = [record(i, id=f"{extension}{i}") for i in range(7)]
        behind.put(str(write(tmp_path / f"a.{extension}", rows)), f"{bucket}/in/a.{extension}")
    config = data_config(f"s3://{bucket}/in/*")
    questions = read_all(config)
    assert [q.source_id for q in questions] == [
        f"{x}{i}" for x in ("json", "jsonl", "parquet") for i in range(7)
    ]
    assert not any(q.error for q in questions)
    assert questions[0].source_file == f"s3://{bucket}/in/a.json"

    parts = list_ranges(config, 300)
    assert [part.files[0].format for part in parts].count("jsonl") == 3
    behind.pipe_file(f"{bucket}/in/a.jsonl", behind.cat_file(f"{bucket}/in/a.jsonl")[:50])
    with pytest.raises(
        DataError, match=r"a\.jsonl: was changed while it was read: it had \d rows from row \d"
    ):
        list(read_range(config, next(part for part in parts[::-1] if part.files[0].format == "jsonl")))
    with pytest.raises(DataError, match=r"s3://elsewhere/a\.jsonl"):
        scan(data_config("s3://elsewhere/a.jsonl"))
