"""S3 through s3fs, against moto's server on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
from moto.server import ThreadedMotoServer

from flexray.data import read_shard, scan
from flexray.types import DataError
from tests.unit.data.conftest import data_config, read_all, record, write


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[s3fs.S3FileSystem]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem()
    fs.mkdir("qa-data")
    yield fs
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_each_format_is_read_by_shard_and_a_shrunk_file_is_noticed(
    bucket: s3fs.S3FileSystem, tmp_path: Path
) -> None:
    for extension in ("json", "jsonl", "parquet"):
        rows = [record(i, id=f"{extension}{i}") for i in range(7)]
        bucket.put(str(write(tmp_path / f"a.{extension}", rows)), f"qa-data/in/a.{extension}")
    config = data_config("s3://qa-data/in/*", shard_rows=3)
    questions = read_all(config)
    assert [q.source_id for q in questions] == [
        f"{x}{i}" for x in ("json", "jsonl", "parquet") for i in range(7)
    ]
    assert not any(q.error for q in questions)
    assert questions[0].source_file == "s3://qa-data/in/a.json"

    last_of_jsonl = scan(config).shards[5]
    bucket.pipe_file("qa-data/in/a.jsonl", bucket.cat_file("qa-data/in/a.jsonl")[:50])
    with pytest.raises(DataError, match="1 rows were planned from row 7, found 0"):
        read_shard(last_of_jsonl, config)
    with pytest.raises(DataError, match=r"s3://elsewhere/a\.jsonl"):
        scan(data_config("s3://elsewhere/a.jsonl"))
