"""Processes that die without a word: what is committed stays, and every row is there once in the end."""

import os
import signal
import subprocess
import threading
import time

import psutil
import pytest

from flexray.runs.run import run
from tests.ray.jobs import (
    assert_whole,
    flexray_command,
    kill,
    make_config,
    make_tree,
    manifests,
    question,
    write,
    write_config,
)

# Whoever dies here dies in a round of tests/ray/test_chaos.py as well, among others.
pytestmark = pytest.mark.slow

ROWS = 60


@pytest.fixture
def slow_job(tiny_model, tmp_path):
    """What takes a second or more once the model is loaded, in shards of two rows: (data, sections)."""
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(ROWS)])
    sections = {"data": {"shard_rows": 2}, "generation": {"max_new_tokens": 24, "stop_at_newline": False}}
    return (tmp_path / "out", tiny_model, data), sections


def wait_for(condition, what, seconds=120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"no {what} within {seconds} s"
        time.sleep(0.02)
    return found


def test_a_killed_run_is_resumed_and_every_row_is_there_once(slow_job, local_ray, tmp_path):
    arguments, sections = slow_job
    output = arguments[0]
    config = write_config(tmp_path, make_tree(*arguments, **sections))
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(flexray_command(config), start_new_session=True, stdout=log, stderr=log)
    family: list[psutil.Process] = []
    try:
        wait_for(lambda: manifests(output) or driver.poll() is not None, "manifest")
        family = psutil.Process(driver.pid).children(recursive=True)  # the Ray that it has started
        assert driver.poll() is None, (tmp_path / "log").read_text()
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
        kill(family)
    done = len(manifests(output))
    assert 0 < done < ROWS // 2

    second = run(make_config(*arguments, **sections), log=lambda _: None)
    assert second.rows_before == 2 * done
    assert_whole(output, ROWS)


@pytest.mark.parametrize("role", ["AnswerActor", "JobTracker"])
def test_a_killed_actor_is_replaced_and_every_row_is_there_once(slow_job, local_ray, role):
    arguments, sections = slow_job
    output = arguments[0]
    killed: list[int] = []

    def kill_the_actor():
        wait_for(lambda: manifests(output), "manifest")
        (actor,) = wait_for(lambda: actors(os.getpid(), role), role)
        actor.kill()
        killed.append(len(manifests(output)))

    killer = threading.Thread(target=kill_the_actor)
    killer.start()
    run(make_config(*arguments, **sections), log=lambda _: None)
    killer.join()
    assert killed
    assert killed[0] < ROWS // 2
    assert_whole(output, ROWS)


def actors(driver, role):
    """The processes below `driver` that hold an engine, or the job tracker."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            if role in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:  # it has ended meanwhile
            continue
    return found
