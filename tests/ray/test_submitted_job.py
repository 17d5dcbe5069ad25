"""`ray job submit` of the project to a Ray that runs already, as a nightly job is started."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import PROJECT
from tests.ray.jobs import assert_whole, make_tree, question, write, write_config

RAY = str(Path(sys.executable).with_name("ray"))
ROWS = 5


@pytest.fixture(scope="module")
def head():
    """The dashboard's address of a head node of its own, which ends with the module."""
    temp = Path(tempfile.mkdtemp(prefix="fx", dir="/tmp"))  # short: Ray makes sockets below it
    gcs, dashboard, agent = free_ports(3)
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    command = [RAY, "start", "--head", "--block", f"--temp-dir={temp}", "--node-ip-address=127.0.0.1"]
    command += [f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    command += [f"--dashboard-agent-listen-port={agent}", "--ray-client-server-port=0"]
    command += ["--num-cpus=2", f"--object-store-memory={100 * 2**20}"]
    with (temp / "log").open("w") as log:
        starter = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=temp
        )
    try:
        wait_until_it_listens(dashboard, starter, temp / "log")
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        end(starter)
        shutil.rmtree(temp, ignore_errors=True)


@pytest.fixture(scope="module")
def working_dir(tmp_path_factory):
    """What is uploaded with the job: the package and its entry point."""
    folder = tmp_path_factory.mktemp("upload")
    for name in ("flexray", "jobs"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def wait_until_it_listens(port, starter, log, seconds=60):
    end_time = time.monotonic() + seconds
    while True:
        assert starter.poll() is None, log.read_text()
        assert time.monotonic() < end_time, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)


def end(starter):
    """End `ray start --block` and what it has started; `ray stop` would end every Ray of the machine."""
    processes: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(starter.pid)
        processes = [parent, *parent.children(recursive=True)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    starter.wait()
    psutil.wait_procs(processes, timeout=30)


def submit(head, working_dir, config):
    command = [RAY, "job", "submit", f"--address={head}", f"--working-dir={working_dir}", "--"]
    command += [sys.executable, "jobs/generate.py", "--config", str(config)]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment["RAY_AUTH_MODE"] = "disabled"
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_a_submitted_job_answers_every_row_once(head, working_dir, tiny_model, tmp_path):
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(ROWS)])
    tree = make_tree(tmp_path / "out", tiny_model, data)
    done = submit(head, working_dir, write_config(tmp_path, tree))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"[{ROWS}/{ROWS} rows" in done.stdout
    assert_whole(tmp_path / "out", ROWS)


def test_a_submitted_job_that_is_refused_fails_with_its_message(head, working_dir, tiny_model, tmp_path):
    tree = make_tree(tmp_path / "out", tiny_model, tmp_path / "none.jsonl")
    done = submit(head, working_dir, write_config(tmp_path, tree))
    assert done.returncode != 0
    assert f"error: {tmp_path}/none.jsonl: no such file" in done.stdout + done.stderr
    assert "exit code 2" in done.stdout + done.stderr
