"""`ray job submit` of the project to a Ray that runs already, as a nightly job is started."""

import contextlib
import os
import secrets
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
from tests.ray.jobs import assert_whole, kill, make_tree, question, write, write_config

RAY = str(Path(sys.executable).with_name("ray"))
ROWS = 5


@pytest.fixture(scope="module")
def environment():
    """Of the head and of who submits: a cluster that only this module's token opens."""
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    return {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | ours


@pytest.fixture(scope="module")
def head(environment):
    """The dashboard's address of a head node of its own, which ends with the module."""
    temp = Path(tempfile.mkdtemp(prefix="fx", dir="/tmp"))  # short: Ray makes sockets below it
    gcs, dashboard, agent, client = free_ports(4)
    command = [RAY, "start", "--head", "--block", f"--temp-dir={temp}", "--node-ip-address=127.0.0.1"]
    command += [f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"]
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
def submit(head, environment, tmp_path_factory):
    """Submits a job of the package and its entry point, and waits for its end."""
    folder = tmp_path_factory.mktemp("upload")
    for name in ("flexray", "jobs"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))

    def submit(config):
        command = [RAY, "job", "submit", f"--address={head}", f"--working-dir={folder}", "--"]
        command += [sys.executable, "jobs/generate.py", "--config", str(config)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    return submit


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
    kill(processes)
    starter.wait()


def test_a_submitted_job_answers_every_row_once(submit, tiny_model, tmp_path):
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(ROWS)])
    tree = make_tree(tmp_path / "out", tiny_model, data)
    done = submit(write_config(tmp_path, tree))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"[{ROWS}/{ROWS} rows" in done.stdout
    assert_whole(tmp_path / "out", ROWS)


def test_a_submitted_job_that_is_refused_fails_with_its_message(submit, tiny_model, tmp_path):
    tree = make_tree(tmp_path / "out", tiny_model, tmp_path / "none.jsonl")
    done = submit(write_config(tmp_path, tree))
    assert done.returncode != 0
    assert f"error: {tmp_path}/none.jsonl: no such file" in done.stdout + done.stderr
    assert "exit code 2" in done.stdout + done.stderr
