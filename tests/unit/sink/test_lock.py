"""The run's lock: one holder, whoever races, dies or sleeps. On a local folder and on S3."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from s3fs import S3FileSystem
from werkzeug.serving import make_server

from flexray.errors import OutputError
from flexray.sink import OutputFolder, discard_run, hold, verify
from flexray.sink.lock import file as lock_file
from flexray.sink.lock.file import Owner
from flexray.sink.lock.hold import HeldError, LostError, is_lock
from tests.unit.sink.builders import finished
from tests.unit.sink.racers import QUICK, RACERS, race_all

HOLDER = """
import sys, time
from flexray.sink import OutputFolder, hold
with hold(OutputFolder(sys.argv[1]), beat_seconds=0.2, expiry_seconds=3.0) as lock:
    print("held", flush=True)
    for line in sys.stdin:
        lock.check()
        print("fine", flush=True)
"""


@pytest.fixture(scope="module")
def server():
    # One request at a time: the server looks for the object and then puts it, which S3 does in one step.
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()


@pytest.fixture
def s3_folder(server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    S3FileSystem.clear_instance_cache()
    bucket = f"bucket-{uuid4().hex}"
    fsspec.filesystem("s3").mkdir(bucket)
    folder = OutputFolder(f"s3://{bucket}/out")
    folder.prepare()
    yield folder
    S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["local", "s3"])
def any_folder(request):
    return request.getfixturevalue("folder" if request.param == "local" else "s3_folder")


@pytest.fixture
def holder(any_folder):
    """A process that holds the folder's lock; it checks when it is told a line."""
    command = [sys.executable, "-c", HOLDER, any_folder.url]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def locks(folder):
    return [name for name in folder.list() if is_lock(name)]


def leave(folder, **changes):
    """A lock file as a process leaves it that dies: here, one that never was."""
    tree = json.loads(Owner.me().to_bytes()) | changes
    folder.write_bytes("_lock-1.json", json.dumps(tree).encode())


def elsewhere():
    return {"token": "other", "host": "node-7", "machine": "another", "pid": 4711, "user": "ann"}


def dead_here():
    process = subprocess.Popen(["true"])
    process.wait()
    return {"token": "other", "pid": process.pid}


def test_the_lock_is_there_while_it_is_held_and_gone_afterwards(any_folder):
    with hold(any_folder, **QUICK) as lock:
        assert locks(any_folder) == ["_lock-1.json"]
        lock.check()
    assert locks(any_folder) == []


def test_an_error_of_the_run_releases_the_lock(folder):
    with pytest.raises(KeyError), hold(folder, **QUICK):
        raise KeyError
    assert locks(folder) == []


def test_a_second_start_is_refused_and_told_who_is_at_work(any_folder, holder):
    said = []
    with pytest.raises(HeldError) as error, hold(any_folder, log=said.append, **QUICK):
        pass
    message = str(error.value)
    owner = Owner.parse(any_folder.read_bytes("_lock-1.json"))
    assert message.startswith(f"{any_folder}: another run is at work there: host {owner.host}, ")
    assert f"process {holder.pid} of user {owner.user}, started {owner.started}, last heartbeat" in message
    assert f"command: -c {any_folder}" in message
    assert any(line.startswith(f"{any_folder}: waiting up to 3 s for a heartbeat") for line in said)
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "fine\n"


def test_a_start_that_waits_goes_on_when_the_other_ends(folder):
    with hold(folder, beat_seconds=60, expiry_seconds=60) as first:
        threading.Timer(1, first.release).start()
        with hold(folder, beat_seconds=60, expiry_seconds=60) as second:
            second.check()
    assert locks(folder) == []


def test_the_lock_of_a_killed_process_of_this_machine_is_taken_over_at_once(any_folder, holder):
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # a zombie until it is waited for in earnest
    said = []
    with hold(any_folder, log=said.append, **QUICK):
        assert locks(any_folder) == ["_lock-2.json"]
    assert len(said) == 1  # it did not wait for a heartbeat
    assert f"took over the lock of a dead run: host {os.uname().nodename}, process {holder.pid}" in said[0]
    assert locks(any_folder) == []


def test_a_pid_that_is_used_again_is_not_its_owner(folder):
    leave(folder, token="other", born="1")  # of this process, which is alive, but was born later
    said = []
    with hold(folder, log=said.append, **QUICK):
        assert locks(folder) == ["_lock-2.json"]
    assert len(said) == 1  # it did not wait for a heartbeat
    assert "took over the lock of a dead run" in said[0]


def test_a_process_that_was_born_later_is_another_though_it_has_the_pid():
    me = Owner.me()
    later = subprocess.Popen(["sleep", "60"])
    try:
        assert not me.is_dead()
        assert replace(me, pid=later.pid).is_dead()
    finally:
        later.kill()
        later.wait()


def test_a_process_that_is_alive_and_gives_no_sign_of_life_is_waited_for(folder):
    leave(folder, token="other")
    said = []
    with hold(folder, log=said.append, **QUICK):
        pass
    assert "waiting up to 3 s for a heartbeat" in said[0]


def test_a_lock_of_another_machine_is_taken_over_after_it_was_silent(any_folder):
    leave(any_folder, **elsewhere())
    said = []
    begin = time.monotonic()
    with hold(any_folder, log=said.append, **QUICK):
        assert time.monotonic() - begin >= QUICK["expiry_seconds"]
    assert "waiting up to 3 s for a heartbeat of host node-7, process 4711 of user ann" in said[0]
    assert "took over the lock of a dead run: host node-7" in said[1]


def test_a_wrong_clock_of_another_machine_makes_no_difference(folder):
    leave(folder, **elsewhere(), heartbeat="2099-01-01T00:00:00+00:00")
    with hold(folder, **QUICK):
        pass


def test_a_lock_without_content_is_taken_over_after_it_was_silent(folder):
    folder.write_bytes("_lock-1.json", b"")  # its process died between creating and writing it
    with hold(folder, **QUICK):
        assert locks(folder) == ["_lock-2.json"]


def test_a_suspended_holder_is_taken_over_and_stops_when_it_wakes(any_folder, holder):
    holder.send_signal(signal.SIGSTOP)
    with hold(any_folder, **QUICK) as lock:
        holder.send_signal(signal.SIGCONT)
        _, errors = holder.communicate("\n", timeout=60)
        assert holder.returncode == 1
        last = errors.strip().splitlines()[-1]
        assert "LostError" in last
        assert f"its lock was taken over by host {os.uname().nodename}, process {os.getpid()}" in last
        lock.check()
        assert locks(any_folder) == ["_lock-2.json"]


def test_who_lost_the_lock_does_not_remove_that_of_the_other(folder):
    with hold(folder, beat_seconds=0.2) as lock:
        leave(folder, **elsewhere())
        time.sleep(1)
        with pytest.raises(LostError, match="is now held by host node-7"):
            lock.check()
    assert locks(folder) == ["_lock-1.json"]
    assert Owner.parse(folder.read_bytes("_lock-1.json")).host == "node-7"


def _write(name, data=None):
    def do(folder):
        folder.write_bytes(name, data or json.dumps(json.loads(Owner.me().to_bytes()) | elsewhere()).encode())

    return do


@pytest.mark.parametrize(
    ("happen", "message", "left"),
    [
        (_write("_lock-1.json"), "its lock is now held by host node-7", ["_lock-1.json"]),
        (_write("_lock-7.json"), "its lock was taken over by host node-7", ["_lock-7.json"]),
        (_write("_lock-7.json", b"half"), "was taken over by an unknown process", ["_lock-7.json"]),
        (lambda folder: folder.remove("_lock-1.json"), "its lock file is missing", []),
    ],
    ids=["given", "taken over", "being taken over", "gone"],
)
def test_who_has_slept_sees_by_a_check_that_the_lock_is_lost_before_the_next_beat(
    folder, monkeypatch, happen, message, left
):
    with hold(folder, beat_seconds=60) as lock:
        happen(folder)
        lock.check()  # it is awake, and reads nothing between two beats
        then = time.monotonic() + 121
        with monkeypatch.context() as patch:
            patch.setattr("flexray.sink.lock.hold.time.monotonic", lambda: then)
            with pytest.raises(LostError, match=message):
                lock.check()
        assert locks(folder) == left
    assert locks(folder) == left


def test_a_process_that_proc_hides_is_not_taken_for_dead(monkeypatch):
    alive = Owner.me()
    ended = subprocess.Popen(["true"])
    ended.wait()
    monkeypatch.setattr(lock_file, "Path", lambda path: Path("/nowhere" if "stat" in path else path))
    assert not alive.is_dead()
    assert replace(alive, pid=ended.pid).is_dead()


def test_a_start_that_finds_another_one_behind_its_own_lock_steps_back(folder, monkeypatch):
    def overtaken(*arguments):
        monkeypatch.setattr("flexray.sink.lock.hold.create", lock_file.create)
        _write("_lock-2.json")(folder)
        return lock_file.create(*arguments)

    seen = []

    def look_and_end_the_other(line):
        seen.append(locks(folder))
        folder.remove("_lock-2.json")

    monkeypatch.setattr("flexray.sink.lock.hold.create", overtaken)
    with hold(folder, log=look_and_end_the_other, **QUICK):
        assert locks(folder) == ["_lock-1.json"]
    assert seen == [["_lock-2.json"]]


def test_of_many_that_race_for_a_free_folder_one_holds_it(any_folder):
    assert race_all(any_folder) == ["held", *["refused"] * (RACERS - 1), "still held"]
    assert locks(any_folder) == []


@pytest.mark.parametrize("left", [dead_here, elsewhere])
def test_of_many_that_race_for_a_stale_lock_one_takes_it(any_folder, left):
    leave(any_folder, **left())
    assert race_all(any_folder) == ["held", *["refused"] * (RACERS - 1), "still held"]
    assert locks(any_folder) == []


class Careless(MemoryFileSystem):
    """A store that takes any put."""

    protocol = "careless"
    store: dict = {}  # noqa: RUF012  as its base class has it
    pseudo_dirs = [""]  # noqa: RUF012

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        return super().pipe_file(path, value, **kwargs)


def test_on_a_store_that_takes_any_put_the_last_writer_holds_the_lock(monkeypatch):
    fsspec.register_implementation("careless", Careless, clobber=True)
    monkeypatch.setattr(lock_file, "SETTLE_SECONDS", 0.5)
    folder = OutputFolder(f"careless://{uuid4().hex}")
    folder.prepare()
    said, go = [], threading.Barrier(4)

    def start_one():
        go.wait()
        try:
            with hold(folder, log=lambda _: None, **QUICK):
                said.append("held")
                time.sleep(3)
        except HeldError:
            said.append("refused")

    threads = [threading.Thread(target=start_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == ["held", "refused", "refused", "refused"]


def test_the_lock_shows_no_secret(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["flexray", "run", "--set", "output=s3://key:secret@bucket/out"])
    with hold(folder, **QUICK):
        data = folder.read_bytes("_lock-1.json")
    assert b"secret" not in data
    assert b"flexray run --set" in data


def test_a_locked_folder_can_be_started_verified_and_discarded(folder):
    with hold(folder, **QUICK):
        finished(folder)
        assert verify(folder).findings == ()
        assert discard_run(folder)
        assert locks(folder) == ["_lock-1.json"]


def test_a_folder_that_takes_no_lock_is_the_users_fault():
    with (
        pytest.raises(OutputError, match=r"/proc/self: the run's lock cannot be acquired"),
        hold(OutputFolder("/proc/self")),
    ):
        pass
