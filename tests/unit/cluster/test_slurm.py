"""`slurm.sh` with stand-ins for Slurm, Ray and flexray: what it starts, its signals and its exit code."""

import os
import re
import signal
import subprocess

import pytest

from tests.unit.cluster.manifests import CLUSTER
from tests.unit.cluster.slurm import slurm_job
from tests.unit.cluster.tools import parse, stand_in, told, wait_for, waiting

PORT = 20000 + 4711 % 2500 * 4
RAY = waiting('echo "ended $2" >> $TOLD; exit 0')
RAY_STARTS = 'until [ "$(grep -c "^ray is ready" $TOLD)" = 2 ]; do sleep 0.02; done'
HEAD_STARTS = RAY_STARTS.replace("2 ]", "1 ]")


@pytest.fixture
def start(tmp_path):
    """Starts slurm.sh in a project whose programs are stand-ins. Its process ends with the test."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    started = []

    def start(*words, flexray="exit 0", python=RAY_STARTS, nodes="n1,n2", **variables):
        for name, text in (("ray", RAY), ("flexray", flexray), ("python", python)):
            stand_in(tmp_path, name, text).rename(programs / name)
        job = slurm_job(tmp_path, nodes, SLURM_SUBMIT_DIR=str(tmp_path), **variables)
        env = {**os.environ, **job, "PATH": f"{job['PATH']}:{os.environ['PATH']}"}
        command = [CLUSTER / "slurm.sh", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=env, cwd="/", **pipes))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()
        process.stderr.close()


def test_the_head_and_the_workers_are_started_with_what_slurm_gives(start, tmp_path):
    more = {"SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_ON_NODE": "2", "SLURM_MEM_PER_NODE": "4096"}
    process = start("run", "my recipe.yaml", nodes="n1,n2,n3", **more)
    assert process.wait(timeout=30) == 0
    lines = told(tmp_path)
    steps = sorted(line for line in lines if line.startswith("srun "))
    assert [re.findall("--(?:nodes|ntasks|nodelist)=(\\S+)", step) for step in steps] == [
        ["1", "1", "n1"],
        ["2", "2", "n2,n3"],
    ]
    assert all("--overlap" in step and "--cpus-per-task=8" in step for step in steps)
    head, worker = [parse(step[step.index("ray start") :].split()) for step in steps]
    assert (head["head"], head["port"], head["include_dashboard"]) == (True, PORT, False)
    assert head["temp_dir"] == "/tmp/ray-4711"
    assert worker["address"] == f"n1:{PORT}"
    for node in (head, worker):
        assert (node["num_cpus"], node["num_gpus"], node["block"]) == (8, 2, True)
        assert node["object_store_memory"] == 2**30
    assert "flexray run my recipe.yaml" in lines
    assert sorted(line for line in lines if line.startswith("ended")) == [
        f"ended --address=n1:{PORT}",
        "ended --head",
    ]
    assert "scontrol requeue 4711" not in lines


def test_only_this_job_has_the_token_and_no_command_shows_it(start, tmp_path):
    said = 'echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN $RAY_ADDRESS"'
    process = start("run", "my.yaml", flexray=said, python=HEAD_STARTS, nodes="n1")
    (mode, token, address) = process.communicate(timeout=30)[0].split()
    assert (mode, address) == ("token", f"n1:{PORT}")
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert token not in "".join(told(tmp_path))
    assert len([line for line in told(tmp_path) if line.startswith("srun ")]) == 1  # no workers


@pytest.mark.parametrize("code", [1, 2, 137])
def test_the_job_ends_with_the_exit_code_and_is_not_queued_again(start, tmp_path, code):
    assert start("run", "my.yaml", flexray=f"exit {code}").wait(timeout=30) == code
    assert "scontrol requeue 4711" not in told(tmp_path)


@pytest.mark.parametrize(("sent", "again"), [(signal.SIGTERM, False), (signal.SIGUSR1, True)])
def test_a_signal_stops_flexray_and_the_end_of_the_time_queues_the_job_again(start, tmp_path, sent, again):
    process = start("run", "my.yaml", flexray=waiting("exit 143"))
    wait_for(lambda: "flexray is ready" in told(tmp_path))
    process.send_signal(sent)
    assert process.wait(timeout=30) == 143
    assert ("scontrol requeue 4711" in told(tmp_path)) is again


def test_a_run_that_is_done_when_the_time_is_up_is_not_queued_again(start, tmp_path):
    process = start("run", "my.yaml", flexray=waiting("exit 0"))
    wait_for(lambda: "flexray is ready" in told(tmp_path))
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=30) == 0
    assert "scontrol requeue 4711" not in told(tmp_path)


def test_a_signal_while_ray_starts_ends_the_job_before_flexray(start, tmp_path):
    process = start("run", "my.yaml", python=waiting("exit 143"))
    wait_for(lambda: "python is ready" in told(tmp_path))
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=30) == 143
    assert not any(line.startswith("flexray") for line in told(tmp_path))
    assert "scontrol requeue 4711" in told(tmp_path)


def test_a_ray_that_does_not_start_ends_the_job_with_1(start, tmp_path):
    assert start("run", "my.yaml", python="exit 3").wait(timeout=30) == 1
    assert not any(line.startswith("flexray") for line in told(tmp_path))
