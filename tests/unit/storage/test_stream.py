import os

import fsspec
import pytest

from flexray.storage import StorageError, open_file, read_range
from tests.faulty_s3 import answer, cut_response

DATA = os.urandom(100) + b"".join(b"line %d\n" % i for i in range(200_000))


@pytest.fixture(params=["s3", "http", "local", "memory"])
def url(request, tmp_path):
    """The same file on stores of different kinds; the http server is S3's, without a signature."""
    if request.param == "local":
        (tmp_path / "f").write_bytes(DATA)
        return str(tmp_path / "f")
    if request.param == "memory":
        fsspec.filesystem("memory").pipe_file("/stream/f", DATA)
        return "memory://stream/f"
    s3, bucket, behind = (request.getfixturevalue(name) for name in ("s3", "bucket", "behind"))
    behind.pipe_file(f"{bucket}/f", DATA, ACL="public-read")
    return f"s3://{bucket}/f" if request.param == "s3" else f"{s3.url}/{bucket}/f"


def test_a_file_reads_as_a_local_one_does(url):
    with open_file(url) as stream:
        assert stream.read() == DATA
        assert stream.read(1) == b""
        assert stream.seek(-5, os.SEEK_END) == len(DATA) - 5
        assert stream.read(99) == DATA[-5:]
        stream.seek(100)
        assert [next(stream) for _ in range(3)] == [b"line 0\n", b"line 1\n", b"line 2\n"]
        assert stream.tell() == 121


def test_a_range_ends_where_the_file_does(url):
    assert read_range(url, 100, 107) == b"line 0\n"
    assert read_range(url, len(DATA) - 3, len(DATA) + 99) == DATA[-3:]
    assert read_range(url, len(DATA), len(DATA) + 1) == b""


@pytest.mark.parametrize("url", ["s3", "http"], indirect=True)
@pytest.mark.parametrize("fault", [cut_response, answer(503, "SlowDown")], ids=["cut", "busy"])
def test_a_failed_read_is_repeated_and_nothing_is_missing(url, fault, s3, bucket):
    s3.fail("GET", f"/{bucket}/f*", fault, skip=1)
    with open_file(url) as stream:
        assert b"".join(stream) == DATA
    s3.heal()
    s3.fail("GET", f"/{bucket}/f*", fault)
    assert read_range(url, 100, 107) == b"line 0\n"


@pytest.mark.parametrize("url", ["s3", "http"], indirect=True)
def test_a_read_that_goes_on_breaking_off_is_an_error_and_no_short_file(url, s3, impatient, bucket):
    s3.fail("GET", f"/{bucket}/f*", cut_response, times=None)
    with pytest.raises(StorageError, match=rf"{bucket}/f: .*tried \d+ times"), open_file(url) as stream:
        list(stream)
    with pytest.raises(StorageError, match=rf"{bucket}/f: .*tried \d+ times"):
        read_range(url, 0, 1000)


@pytest.mark.parametrize("url", ["s3"], indirect=True)
def test_a_file_that_is_replaced_while_it_is_read_is_an_error(url, behind, bucket, monkeypatch):
    monkeypatch.setattr("flexray.storage.read.CHUNK", 2**20)
    behind.pipe_file(f"{bucket}/f", DATA * 3)
    with open_file(url) as stream:
        stream.read(10)
        behind.pipe_file(f"{bucket}/f", DATA[::-1] * 3)
        with pytest.raises(OSError, match="pre-conditions you specified did not hold"):
            stream.read()
