"""A signal ends a run with one line, releases its folder, and the same command goes on."""

import os
import re
import signal
import subprocess
import time

import pytest

from tests.ray.jobs import (
    flexray_command,
    make_tree,
    manifests,
    question,
    write,
    write_config,
)
from tests.ray.test_kill import wait_for

ROWS = 40
SECTIONS = {"data": {"shard_rows": 1}, "generation": {"max_new_tokens": 24, "stop_at_newline": False}}


@pytest.fixture
def start(tiny_model, tmp_path):
    """Starts a run that takes seconds once its model is loaded: the process, and the file it writes to."""
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(ROWS)])
    tree = make_tree(tmp_path / "out", tiny_model, data, **SECTIONS)
    command = flexray_command(write_config(tmp_path, tree))
    log = tmp_path / "log"
    started = []

    def start():
        with log.open("w") as file:
            started.append(subprocess.Popen(command, stdout=file, stderr=file))
        return started[0], log

    yield start
    for process in started:
        process.kill()
        process.wait()


def ended(process, log, output):
    """The exit code and the last line; the folder is nobody's."""
    code = process.wait(timeout=60)
    assert list(output.glob("_lock*")) == []
    return code, log.read_text().splitlines()[-1]


def test_sigterm_while_it_answers_is_one_line_that_says_how_far_it_is(start, tmp_path):
    output = tmp_path / "out"
    process, log = start()
    wait_for(lambda: "[" in log.read_text() and " rows" in log.read_text().split("[")[-1], "line")
    process.send_signal(signal.SIGTERM)
    code, last = ended(process, log, output)
    assert code == 128 + signal.SIGTERM
    told = re.fullmatch(
        rf"stopped by SIGTERM: (\d+) of {ROWS} rows are committed; the same command goes on .*", last
    )
    assert told, log.read_text()
    assert "***" not in log.read_text()  # Ray's C++ frames
    done = len(manifests(output))
    assert 0 < int(told[1]) <= done < ROWS


# Both signals have the same handler. SIGTERM, for which Ray has a handler too, is sent in the test above.
@pytest.mark.parametrize("signum", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGINT])
def test_a_signal_while_ray_is_starting_is_one_line_too(start, tmp_path, signum):
    process, log = start()
    wait_for(lambda: "committed already" in log.read_text(), "line")
    time.sleep(0.5)
    process.send_signal(signum)
    code, last = ended(process, log, tmp_path / "out")
    said = log.read_text().splitlines()  # checking, reading, planned, starting Ray, and this one
    assert (code, len(said), said[-1]) == (128 + signum, 5, last)
    assert f"stopped by {signal.Signals(signum).name}: 0 of {ROWS} rows are committed; the same" in last


def test_a_command_that_holds_nothing_ends_with_its_line(start):
    process, log = start()
    wait_for(lambda: os.path.exists(f"/proc/{process.pid}/maps") and "torch" in maps(process), "torch")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    first, last = log.read_text().splitlines()
    assert first.startswith("checking ")
    assert last.startswith("stopped by SIGTERM")


def maps(process):
    with open(f"/proc/{process.pid}/maps") as file:
        return file.read()
