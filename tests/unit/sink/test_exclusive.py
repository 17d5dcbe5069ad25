"""One file that only one can create, on an S3 server behind a network that fails."""

import time
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from flexray.errors import OutputError
from flexray.sink import OutputFolder, hold
from flexray.sink.lock import file as lock_file
from flexray.sink.lock.file import create
from tests.faulty_s3 import answer, cut_request, drop_answer, stall
from tests.s3 import PATIENCE, TIMEOUT

NAME = "_lock-1.json"


@pytest.fixture
def folder(s3, bucket):
    return OutputFolder(f"s3://{bucket}/out")


def test_the_first_creates_it_and_a_second_put_proves_that_the_server_keeps_it(folder, s3):
    assert create(folder, NAME, b"mine")
    assert s3.count("PUT") == 2
    assert not create(folder, NAME, b"other")
    assert folder.read_bytes(NAME) == b"mine"


PASSING = [
    answer(503, "SlowDown"),
    answer(500, "InternalError"),
    answer(409, "OperationAborted"),
    answer(409, "ConditionalRequestConflict"),
    cut_request,
]


@pytest.mark.parametrize("fault", PASSING, ids=["503", "500", "409 aborted", "409 conflict", "cut"])
def test_a_fault_that_passes_is_sat_out(folder, s3, fault):
    s3.fail("PUT", "*/_lock-*", fault, times=3)
    assert create(folder, NAME, b"mine")
    assert s3.count("PUT") == 3 + 2
    assert folder.read_bytes(NAME) == b"mine"


def test_a_file_of_ones_own_whose_answer_was_lost_is_created(folder, s3):
    s3.fail("PUT", "*/_lock-*", drop_answer)
    assert create(folder, NAME, b"mine")
    assert s3.count("PUT") == 2
    assert folder.read_bytes(NAME) == b"mine"


def test_a_file_of_anothers_is_found_behind_a_fault_that_passes(folder, s3):
    folder.write_bytes(NAME, b"other")
    s3.heal()
    s3.fail("PUT", "*/_lock-*", cut_request)
    assert not create(folder, NAME, b"mine")
    assert s3.count("PUT") == 2
    assert folder.read_bytes(NAME) == b"other"


def test_a_refusal_is_not_tried_again(folder, s3):
    folder.write_bytes(NAME, b"other")
    s3.heal()
    assert not create(folder, NAME, b"mine")
    assert s3.count("PUT") == 1


def test_a_file_that_went_away_after_the_refusal_is_created(folder, s3):
    s3.fail("PUT", "*/_lock-*", answer(412, "PreconditionFailed"))
    assert create(folder, NAME, b"mine")
    assert folder.read_bytes(NAME) == b"mine"


def test_refusals_without_a_file_are_an_error(folder, s3, bucket):
    s3.fail("PUT", "*/_lock-*", answer(412, "PreconditionFailed"), times=None)
    with pytest.raises(OSError, match=rf"^s3://{bucket}/out/{NAME}: cannot be created: refused, although"):
        create(folder, NAME, b"mine")


def test_a_server_that_never_answers_is_given_up_in_time(s3, impatient, bucket):
    folder = OutputFolder(f"s3://{bucket}/out")
    s3.fail("PUT", "*/_lock-*", stall, times=None)
    began = time.monotonic()
    with (
        pytest.raises(OutputError, match=r"lock cannot be acquired: .*tried \d+ times"),
        hold(folder),
    ):
        pass
    assert time.monotonic() - began < PATIENCE + TIMEOUT + 4


def test_credentials_that_expired_are_named_at_once(folder, s3):
    s3.fail("PUT", "*/_lock-*", answer(403, "ExpiredToken", "The provided token has expired."), times=None)
    with pytest.raises(OutputError, match=r"cannot be acquired: .*403 ExpiredToken.*renew AWS"), hold(folder):
        pass
    assert s3.count("PUT") == 1


def test_a_store_in_memory_keeps_the_condition_so_nobody_waits_for_another_writer(monkeypatch):
    monkeypatch.setattr("flexray.sink.lock.file.time.sleep", lambda seconds: pytest.fail("waited"))
    folder = OutputFolder(f"memory://{uuid4().hex}")
    assert create(folder, NAME, b"mine")
    assert not create(folder, NAME, b"other")
    assert folder.read_bytes(NAME) == b"mine"


class Unreliable(MemoryFileSystem):
    """A store without a conditional put, whose first answer is lost while another one writes."""

    protocol = "unreliable"
    store: dict = {}  # noqa: RUF012  as its base class has it
    pseudo_dirs = [""]  # noqa: RUF012
    puts = 0

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        if mode == "create" and self.exists(path):
            raise FileExistsError
        super().pipe_file(path, value, **kwargs)
        if mode == "create":
            raise ConnectionResetError


def test_on_a_store_without_a_condition_the_last_writer_has_won_even_if_the_answer_was_lost(monkeypatch):
    fsspec.register_implementation("unreliable", Unreliable, clobber=True)
    folder = OutputFolder("unreliable://out")
    waited = []

    def overtaken(seconds):
        if seconds == lock_file.SETTLE_SECONDS:
            waited.append(seconds)
            folder.write_bytes(NAME, b"other")

    monkeypatch.setattr("flexray.sink.lock.file.time.sleep", overtaken)
    assert not create(folder, NAME, b"mine")
    assert waited
