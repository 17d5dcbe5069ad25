"""Reading from S3, and from a plain HTTP server, over a network that fails."""

import json
from pathlib import Path
from typing import Any

import pytest
from s3fs import S3FileSystem

from flexray.data import list_ranges, read_range, scan
from flexray.errors import DataError
from tests.faulty_s3 import FaultyS3, answer, cut_response
from tests.s3 import SECRET
from tests.unit.data.conftest import data_config, read_all, record, write

FORMATS = ("json", "jsonl", "parquet")
FAULTS = {"cut": cut_response, "busy": answer(503, "SlowDown")}


@pytest.fixture
def data(behind: S3FileSystem, bucket: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The key of a file with 20 rows of the asked-for format (jsonl)."""
    extension = getattr(request, "param", "jsonl")
    path = write(tmp_path / f"a.{extension}", [record(i) for i in range(20)])
    behind.pipe_file(f"{bucket}/in/{path.name}", path.read_bytes(), ACL="public-read")
    return f"{bucket}/in/{path.name}"


@pytest.mark.parametrize("data", FORMATS, indirect=True)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("store", ["s3", "http"])
def test_a_passing_fault_is_sat_out_and_no_row_is_missing(
    s3: FaultyS3, data: str, store: str, fault: str
) -> None:
    config = data_config(f"s3://{data}" if store == "s3" else f"{s3.url}/{data}")
    s3.fail("GET", f"/{data}*", FAULTS[fault], times=2)
    if fault != "cut":
        s3.fail("HEAD", f"/{data}*", FAULTS[fault])
    assert len(scan(config)) == 20
    rows = 0
    for part in list_ranges(config, 800):
        s3.fail("GET", f"/{data}*", FAULTS[fault])
        rows += sum(map(len, read_range(config, part)))
    assert rows == 20


@pytest.mark.parametrize("data", FORMATS, indirect=True)
def test_a_file_that_goes_on_breaking_off_is_an_error_and_never_fewer_rows(
    s3: FaultyS3, impatient: None, data: str
) -> None:
    config = data_config(f"s3://{data}")
    last = list_ranges(config, 800)[-1]
    s3.fail("GET", f"/{data}*", cut_response, times=None)
    with pytest.raises(
        DataError, match=rf"^s3://{data}: cannot be read: .*Not enough data .*tried \d+ times"
    ):
        scan(config)
    with pytest.raises(DataError, match=rf"^s3://{data}: .*Not enough data .*tried \d+ times"):
        list(read_range(config, last))


@pytest.mark.parametrize("fault", [answer(403, "AccessDenied"), answer(500, "InternalError")])
def test_a_folder_that_cannot_be_listed_is_an_error_and_not_left_out(
    s3: FaultyS3, impatient: None, behind: S3FileSystem, bucket: str, fault: Any
) -> None:
    for folder in ("x", "y"):
        behind.pipe_file(f"{bucket}/in/{folder}/a.jsonl", json.dumps(record(1, id=folder)).encode())
    config = data_config(f"s3://{bucket}/in/*/*.jsonl")
    assert len(read_all(config)) == 2
    s3.fail("GET", "*prefix=in%2Fy%2F*", fault, times=None)
    with pytest.raises(DataError, match=rf"^s3://{bucket}/in/\*/\*.jsonl: cannot be listed: .*injected"):
        scan(config)


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId"])
def test_bad_credentials_are_told_at_once(s3: FaultyS3, data: str, code: str) -> None:
    config = data_config(f"s3://{data}")
    [part] = list_ranges(config)
    s3.heal()
    s3.fail("GET", f"/{data}*", answer(403, code, "The provided token has expired."), times=None)
    with pytest.raises(DataError, match=rf"^s3://{data}: .*\(403 {code}\).*renew AWS_ACCESS_KEY_ID") as e:
        list(read_range(config, part))
    assert s3.count("GET") == 1
    assert SECRET not in str(e.value)
    # S3 says no more than 403 to a HEAD, which is how a start looks for a file.
    s3.fail("HEAD", f"/{data}*", answer(403, "Forbidden"), times=None)
    with pytest.raises(DataError, match=rf"^s3://{data}: cannot be listed: .*or have expired: .*AWS_SESSION"):
        scan(config)


def test_a_missing_bucket_and_a_missing_file_are_told(s3: FaultyS3, bucket: str) -> None:
    for url in ("s3://no-such-bucket/a.jsonl", f"s3://{bucket}/a.jsonl"):
        with pytest.raises(DataError, match=rf"^{url}: "):
            scan(data_config(url))


def test_an_unreachable_server_is_told(
    s3: FaultyS3, impatient: None, new_client: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(DataError, match=r"Could not connect .*tried \d+ times.*Check AWS_ENDPOINT_URL"):
        scan(data_config("s3://bucket/a.jsonl"))


def test_a_store_whose_package_is_missing_is_named_with_the_command() -> None:
    with pytest.raises(DataError, match=r"gs://bucket/a.jsonl: .*install gcsfs"):
        scan(data_config("gs://bucket/a.jsonl"))


def test_rows_and_messages_do_not_show_the_credentials_of_a_url(s3: FaultyS3, data: str) -> None:
    config = data_config(f"{s3.url}/{data}?sig=hunter2", format="jsonl")
    assert scan(config)["source_file"].to_pylist() == [f"{s3.url}/{data}?sig=***"] * 20
    with pytest.raises(DataError) as e:
        scan(data_config(f"{s3.url}/nothing.jsonl?sig=hunter2", format="jsonl"))
    assert "hunter2" not in str(e.value)
