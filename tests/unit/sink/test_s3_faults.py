"""The sink on an S3 server behind a network that fails: real requests, real faults."""

import os
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest
from s3fs import S3FileSystem

from flexray.errors import OutputError
from flexray.sink import DamageError, OutputFolder, committed_shards, compact, read_committed, verify
from flexray.sink.commit.manifests import list_manifests
from tests.faulty_s3 import answer, cut_request, cut_response, delay, drop_answer, stall
from tests.s3 import PATIENCE, SECRET, TIMEOUT
from tests.unit.sink.builders import SHARDS, A, B, commit, finished, start, table

BUSY = [(503, "SlowDown"), (503, "ServiceUnavailable"), (500, "InternalError"), (429, "TooManyRequests")]
EXPIRED = "The provided token has expired."


@pytest.fixture
def folder(s3, bucket):
    return OutputFolder(f"s3://{bucket}/out")


def data_files(behind, bucket):
    return behind.ls(f"{bucket}/out/data", detail=False)


@pytest.mark.parametrize(("status", "code"), BUSY, ids=[code for _, code in BUSY])
def test_a_busy_server_is_waited_for_and_nothing_is_doubled(folder, s3, behind, bucket, status, code):
    run = start(folder)
    for method, target in (("PUT", "*/data/*"), ("GET", f"*/_manifests/{A.shard_id}.json")):
        s3.fail(method, target, answer(status, code))
    commit(folder, run, A)
    assert s3.count("PUT", "*/data/*") == 2
    assert len(data_files(behind, bucket)) == 1
    s3.fail("GET", "*list-type=2*", answer(status, code))
    assert list(committed_shards(folder, run)) == [A.shard_id]


def test_a_slow_answer_is_waited_for(folder, s3):
    s3.fail("PUT", "*", delay(0.5))
    folder.write_bytes("a", b"slow")
    assert s3.count("PUT") == 1
    assert folder.read_bytes("a") == b"slow"


def test_an_answer_that_is_too_slow_is_asked_for_again(s3, impatient, monkeypatch, bucket):
    monkeypatch.setenv("FLEXRAY_STORAGE_PATIENCE", "10")
    folder = OutputFolder(f"s3://{bucket}/out")
    folder.write_bytes("a", b"slow")
    s3.fail("GET", "*", delay(3 * TIMEOUT))
    assert folder.read_bytes("a") == b"slow"
    assert s3.count("GET") == 2


@pytest.mark.parametrize(("status", "code"), BUSY[:1] + BUSY[2:3])
def test_a_server_that_stays_busy_fails_the_commit_in_time_and_a_resume_goes_on(
    folder, s3, bucket, status, code, impatient
):
    run = start(folder)
    commit(folder, run, A)
    s3.fail("PUT", "*/_manifests/*", answer(status, code, "Please reduce your request rate."), times=None)
    began = time.monotonic()
    with pytest.raises(OSError, match=rf"^{folder}/_manifests/{B.shard_id}.json: Please reduce") as e:
        commit(folder, run, B)
    assert time.monotonic() - began < PATIENCE + 4
    assert f"({status} {code}) (tried " in str(e.value)
    assert str(e.value).endswith("when it is well, start again: the run resumes.")
    s3.heal()
    assert start(folder) == run
    assert list(committed_shards(folder, run)) == [A.shard_id]
    commit(folder, run, B)
    assert list(committed_shards(folder, run)) == [A.shard_id, B.shard_id]
    assert list(read_committed(folder)) == [table(A), table(B)]


def test_a_server_that_never_answers_is_given_up_in_time(s3, impatient, bucket):
    folder = OutputFolder(f"s3://{bucket}/out")
    folder.write_bytes("a", b"a")
    s3.fail("GET", "*", stall, times=None)
    began = time.monotonic()
    with pytest.raises(OSError, match=r"Read timeout .*tried \d+ times"):
        folder.read_bytes("a")
    assert time.monotonic() - began < PATIENCE + TIMEOUT + 4


def test_a_server_that_stops_reading_is_given_up_in_time(s3, impatient, monkeypatch, bucket):
    monkeypatch.setenv("FLEXRAY_STORAGE_PATIENCE", "0")
    folder = OutputFolder(f"s3://{bucket}/out")
    s3.fail("PUT", "*", stall)
    began = time.monotonic()
    with pytest.raises(OSError, match=r"out/a: no answer in time \(tried 1 times"):
        folder.write_bytes("a", bytes(16 * 2**20))  # more than the buffers on the way hold
    assert time.monotonic() - began < 20


def test_a_write_that_is_cut_leaves_nothing_and_is_repeated(folder, s3, behind, bucket, monkeypatch):
    run = start(folder)
    s3.fail("PUT", "*/data/*", cut_request)
    s3.fail("PUT", "*/_manifests/*", cut_request)
    commit(folder, run, A)
    assert (s3.count("PUT", "*/data/*"), s3.count("PUT", "*/_manifests/*")) == (2, 2)
    assert len(data_files(behind, bucket)) == 1
    assert list(read_committed(folder)) == [table(A)]

    s3.fail("PUT", "*/data/*", cut_request, times=None)
    monkeypatch.setenv("FLEXRAY_STORAGE_PATIENCE", "1")
    with pytest.raises(OSError, match=rf"/data/{B.shard_id}-.*Connection was closed"):
        commit(folder, run, B)
    assert len(data_files(behind, bucket)) == 1
    assert verify(folder).orphans == ()


@pytest.mark.parametrize("target", ["*/data/*", "*/_manifests/*", "*/_run.json"])
def test_a_write_whose_answer_is_lost_is_repeated_without_harm(folder, s3, behind, bucket, target):
    s3.fail("PUT", target, drop_answer)
    finished(folder)
    assert len(data_files(behind, bucket)) == len(SHARDS)
    assert list(read_committed(folder)) == [table(spec) for spec in SHARDS]
    assert verify(folder).ok


def test_a_deletion_whose_answer_is_lost_is_repeated_without_harm(folder, s3):
    folder.write_bytes("a", b"a")
    s3.fail("DELETE", "*", drop_answer)
    folder.remove("a")
    assert s3.count("DELETE") == 2
    assert folder.read_if_there("a") is None


def test_a_read_that_is_cut_is_repeated(folder, s3):
    finished(folder)
    for target in ("*/data/*", "*/_manifests/*", "*/_run.json"):
        s3.fail("GET", target, cut_response)
    assert list(read_committed(folder)) == [table(spec) for spec in SHARDS]


def test_a_read_that_goes_on_breaking_off_is_an_error(folder, s3, monkeypatch):
    finished(folder)
    monkeypatch.setenv("FLEXRAY_STORAGE_PATIENCE", "0.5")
    s3.fail("GET", "*/data/*", cut_response, times=None)
    with pytest.raises(OutputError, match=rf"/out/data/{A.shard_id}-.*Not enough data .*tried \d+ times"):
        list(read_committed(folder))
    assert not verify(folder).ok


@pytest.mark.parametrize("compacted", [False, True])
def test_manifests_that_the_storage_does_not_give_are_an_error_not_fewer_shards(folder, s3, compacted):
    run = finished(folder)
    if compacted:
        compact(folder, run.fingerprint, max_singles=0)
    name = "compact-*" if compacted else f"{B.shard_id}.json"
    s3.fail("GET", f"*/_manifests/{name}", answer(403, "AccessDenied", "Access Denied"), times=None)
    with pytest.raises(DamageError, match=r"cannot be read \(.*Access Denied") as caught:
        committed_shards(folder, run)
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_bad_credentials_are_found_at_the_start_and_at_once(folder, s3, bucket, code):
    s3.fail("PUT", "*", answer(403, code, EXPIRED), times=None)
    began = time.monotonic()
    with pytest.raises(OutputError) as e:
        folder.prepare()
    assert time.monotonic() - began < 5
    assert s3.count("PUT") == 1
    assert str(e.value) == (
        f"s3://{bucket}/out: the output folder cannot be created or written: The provided token has expired "
        f"(403 {code}). The credentials are missing, wrong or have expired: renew AWS_ACCESS_KEY_ID, "
        "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN (or the profile of AWS_PROFILE) and start again: the "
        "run resumes."
    )


@pytest.mark.parametrize("target", ["*/data/*", "*/_manifests/*"])
def test_credentials_that_expire_in_a_run_fail_the_commit_and_a_resume_goes_on(folder, s3, bucket, target):
    run = start(folder)
    commit(folder, run, A)
    s3.heal()
    s3.fail("PUT", target, answer(403, "ExpiredToken", EXPIRED), times=None)
    with pytest.raises(OSError, match=rf"^s3://{bucket}/out/.*\(403 ExpiredToken\).*renew AWS_ACCESS_KEY_ID"):
        commit(folder, run, B)
    assert s3.count("PUT", target) == 1
    s3.heal()
    assert start(folder) == run
    commit(folder, run, B)
    assert list(read_committed(folder)) == [table(A), table(B)]


@pytest.mark.parametrize(
    ("method", "target", "act"),
    [
        ("PUT", "*", lambda folder: folder.prepare()),
        ("GET", "*/_run.json", start),
        ("GET", "*list-type=2*", start),
        ("GET", "*list-type=2*", list_manifests),
    ],
    ids=["write", "read", "list", "list manifests"],
)
def test_a_missing_permission_is_one_clear_message(folder, s3, bucket, method, target, act):
    s3.fail(method, target, answer(403, "AccessDenied", "Access Denied"), times=None)
    with pytest.raises(OutputError, match=rf"s3://{bucket}/out.*Access Denied \(403 AccessDenied\)") as e:
        act(folder)
    assert "The credentials do not allow this" in str(e.value)
    assert "\n" not in str(e.value)
    assert s3.count(method, target) == 1


def test_a_missing_bucket_is_one_clear_message(s3):
    with pytest.raises(
        OutputError, match=r"^s3://no-such-bucket/out: .*\(404 NoSuchBucket\)\. Create the buck"
    ):
        OutputFolder("s3://no-such-bucket/out").prepare()


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://no-such-host.invalid"])
def test_a_wrong_endpoint_is_one_clear_message(s3, new_client, monkeypatch, endpoint):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setattr("flexray.sink.folder._START_PATIENCE", 1)
    with pytest.raises(OutputError, match=rf"Could not connect to the endpoint URL: \"{endpoint}") as e:
        OutputFolder("s3://bucket/out").prepare()
    assert str(e.value).endswith("Check AWS_ENDPOINT_URL and the network, and start again: the run resumes.")
    assert "\n" not in str(e.value)


def test_no_message_shows_credentials(s3, new_client, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url.replace("//", "//user:hunter2@"))
    folder = OutputFolder("s3://AKIAEXAMPLE:hunter2@bucket/out")
    with pytest.raises(OutputError) as e:
        folder.prepare()
    assert "hunter2" not in str(e.value)
    assert SECRET not in str(e.value)


BIG = 110 * 2**20  # s3fs puts 100 MB and more in parts


def test_a_big_file_is_put_in_parts_and_a_failed_part_again(folder, s3, monkeypatch):
    monkeypatch.setenv("FLEXRAY_STORAGE_PATIENCE", "60")
    data = os.urandom(2**20) * (BIG // 2**20)
    s3.fail("PUT", "*partNumber=2*", answer(503, "SlowDown"))
    folder.write_bytes("big", data)
    assert s3.count("POST", "*uploads*") == 2
    assert folder.read_bytes("big") == data


def test_a_process_killed_between_parts_leaves_nothing_to_be_seen(folder, s3, behind, bucket):
    s3.fail("PUT", "*partNumber=3*", stall)
    code = (
        "from flexray.sink import OutputFolder\n"
        f"OutputFolder({folder.url!r}).write_bytes('big', bytes({BIG}))"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    deadline = time.monotonic() + 60
    while not s3.count("PUT", "*partNumber=3*") and time.monotonic() < deadline:
        time.sleep(0.05)
    child.kill()
    child.wait()
    assert s3.count("PUT", "*partNumber=3*") == 1
    assert folder.read_if_there("big") is None
    assert folder.list() == []
    assert len(behind.list_multipart_uploads(bucket)) == 1  # what a lifecycle rule of the bucket clears away


def test_a_store_whose_package_is_missing_is_named_with_the_command():
    if "gcsfs" in sys.modules:
        pytest.skip("gcsfs is installed")
    with pytest.raises(OutputError, match=r"^gs://bucket/out: .*install gcsfs"):
        OutputFolder("gs://bucket/out")


def test_settings_of_fsspecs_configuration_come_first(s3, monkeypatch):
    theirs = {"config_kwargs": {"read_timeout": 7, "retries": {"max_attempts": 3}}, "max_concurrency": 4}
    monkeypatch.setitem(fsspec.config.conf, "s3", theirs)
    fs = OutputFolder("s3://bucket/out")._fs
    assert isinstance(fs, S3FileSystem)
    assert (fs.max_concurrency, fs.config_kwargs["connect_timeout"]) == (4, 5)
    assert fs.config_kwargs["read_timeout"] == 7
    assert fs.config_kwargs["retries"] == {"max_attempts": 3}
