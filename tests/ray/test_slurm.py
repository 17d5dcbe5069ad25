"""`cluster/slurm.sh` with a Ray of two nodes, both on this machine; Slurm's own commands are stand-ins."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flexray.config.fault_injection import VARIABLE
from flexray.sink import OutputFolder, read_committed
from tests.conftest import PROJECT
from tests.ray.jobs import assert_whole, kill, make_tree, question, write, write_config
from tests.unit.cluster.slurm import slurm_job
from tests.unit.cluster.tools import told, wait_for

ROWS = 6
ID = str(os.getpid())  # it makes the port


@pytest.fixture
def start(tmp_path):
    """Starts slurm.sh with this environment's programs; all that it has started ends with the test."""
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    more = {"SLURM_JOB_ID": ID, "SLURM_MEM_PER_NODE": "400", "SLURM_SUBMIT_DIR": str(tmp_path)}
    job = slurm_job(tmp_path, "127.0.0.1,127.0.0.1", **more)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    env = {**kept, **job, "RAY_worker_niceness": "0", "PYTHONPATH": str(PROJECT)}
    env["PATH"] = f"{job['PATH']}:{os.environ['PATH']}"
    started = []

    def start(*words, faults=()):
        with (tmp_path / "log").open("a") as log:  # as `--open-mode=append` does
            command = [PROJECT / "cluster" / "slurm.sh", *words]
            faulty = env | {VARIABLE: json.dumps(list(faults))}
            started.append(subprocess.Popen(command, env=faulty, stdout=log, stderr=log, cwd="/"))
        return started[-1]

    yield start
    for process in started:
        left = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.wait()
        kill(left)
    shutil.rmtree(f"/tmp/ray-{ID}", ignore_errors=True)


@pytest.mark.slow  # Ray starts three times
def test_a_job_whose_time_is_up_is_queued_again_and_goes_on_and_a_typo_ends_it_with_2(
    start, tiny_model, tmp_path
):
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(ROWS)])
    tree = make_tree(tmp_path / "out", tiny_model, data)
    config = write_config(tmp_path, tree)
    # the second shard is answered for longer than the time that is left
    hangs = {"point": "pipeline.answer", "action": "sleep:100", "match": {"shard_id": "*1"}}
    process = start("run", str(config), faults=[{**hangs, "ledger": str(tmp_path / "ledger")}])
    wait_for((tmp_path / "ledger").exists, seconds=300)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=120) == 143, (tmp_path / "log").read_text()
    assert f"scontrol requeue {ID}" in told(tmp_path)
    assert "stopped by SIGTERM" in (tmp_path / "log").read_text()
    before = sum(table.num_rows for table in read_committed(OutputFolder(str(tmp_path / "out"))))
    assert before < ROWS

    again = start("run", str(config))
    assert again.wait(timeout=300) == 0, (tmp_path / "log").read_text()
    assert "Ray runs on 2 nodes" in (tmp_path / "log").read_text()
    assert_whole(tmp_path / "out", ROWS)
    assert not [p for p in psutil.process_iter(["cmdline"]) if f"/tmp/ray-{ID}" in str(p.info["cmdline"])]

    typo = write_config(tmp_path, tree | {"modle": {}})
    assert start("run", str(typo)).wait(timeout=300) == 2
    assert re.search("^error: .*\n.*modle", (tmp_path / "log").read_text(), re.M)
