"""A disk without space: it is said with the file and what to do; nothing is lost, and no lock is left."""

import contextlib
import errno
import os
import pickle
import subprocess

import pytest

from flexray.errors import OutputError
from flexray.sink import OutputFolder, committed_shards, hold, verify
from flexray.sink.lock.hold import is_lock
from flexray.storage import StorageError
from tests.unit.sink.builders import A, B, C, commit, start
from tests.unit.sink.damages import quiet, resume

ADVICE = "Free space there, or have the quota raised, and start again: the run resumes."


@pytest.fixture
def disk(tmp_path):
    """A file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(disk):
    """Leave no space; returns the file that takes it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))
    return ballast


def locks(folder):
    return [name for name in folder.list() if is_lock(name)]


def test_a_run_on_a_full_disk_keeps_what_is_committed_gives_its_lock_back_and_goes_on(disk):
    folder = OutputFolder(str(disk / "out"))
    folder.prepare()
    with hold(folder, log=quiet, beat_seconds=0.1) as lock:
        run = start(folder)
        commit(folder, run, A)
        ballast = fill(disk)
        lock.check()
        with pytest.raises(StorageError) as caught:
            commit(folder, run, B)
    assert f"{folder}/data/{B.shard_id}-" in str(caught.value)
    assert f"No space left on device. {ADVICE}" in str(caught.value)
    assert locks(folder) == []
    assert list(committed_shards(folder, run)) == [A.shard_id]
    assert verify(folder).orphans == ()
    ballast.unlink()
    with hold(folder, log=quiet):
        assert resume(folder) == {B.shard_id, C.shard_id}
    assert verify(folder).ok


def test_a_start_on_a_full_disk_leaves_no_lock_and_no_probe(disk):
    folder = OutputFolder(str(disk / "out"))
    folder.prepare()
    fill(disk)
    with pytest.raises(OutputError, match=rf"/out: the output folder cannot .*: No space .* {ADVICE}"):
        folder.prepare()
    with pytest.raises(OutputError, match=rf"lock cannot be acquired: .*_lock-1.json: No space .* {ADVICE}"):
        hold(folder, log=quiet).__enter__()
    assert folder.list() == []


def test_a_disk_that_became_read_only_is_said_to_be(disk):
    folder = OutputFolder(str(disk / "out"))
    folder.prepare()
    said = []
    with hold(folder, log=said.append):
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(OSError, match=r"a: Read-only file system\. Have the file system mounted"):
            folder.write_bytes("a", b"a")
    assert "the run's lock cannot be removed" in said[-1]
    with pytest.raises(OutputError, match=r"Read-only file system\. Have the file system mounted"):
        folder.prepare()


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, ADVICE),
        (errno.EDQUOT, ADVICE),
        (errno.EROFS, "Have the file system mounted for writing, or give another folder."),
        (errno.EIO, ""),
    ],
)
def test_a_write_that_fails_names_its_file_and_travels_to_another_process(
    folder, monkeypatch, number, advice
):
    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError) as caught:
        folder.write_bytes("data/x", b"new")
    told = pickle.loads(pickle.dumps(caught.value))
    assert str(told) == f"{folder}/data/x: {os.strerror(number)}. {advice}".rstrip()
    assert told.advice == advice
    assert folder.list("data") == []


def test_a_lock_that_cannot_be_written_is_not_left_empty(folder, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"_lock-1.json: No space left on device"):
        hold(folder, log=quiet).__enter__()
    assert folder.list() == []
