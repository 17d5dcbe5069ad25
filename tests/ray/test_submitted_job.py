"""`flexray submit`, and `ray job submit` of the project, to a Ray that runs already."""

import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.ray.heads import end, free_ports, late_to_say_so, wait_until_it_listens
from tests.ray.jobs import assert_whole, make_tree, question, rows_of, write, write_config
from tests.unit.cluster.manifests import cluster_spec

RAY = str(Path(sys.executable).with_name("ray"))
ROWS = 5


@pytest.fixture(scope="module")
def environment():
    """Of the head and of who submits: a cluster that only this module's token opens."""
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    ours["PATH"] = (
        f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # a job's `python` is this one
    )
    return {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | ours


@dataclass(frozen=True)
class Head:
    address: str
    dashboard: str
    agent: str


@pytest.fixture(scope="module")
def head(environment):
    """The addresses of a head node of its own, which ends with the module."""
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
        for port in (dashboard, agent):
            wait_until_it_listens(port, starter, temp / "log")
        urls = [f"http://127.0.0.1:{port}" for port in (dashboard, agent)]
        yield Head(f"127.0.0.1:{gcs}", *urls)
    finally:
        end(starter)
        shutil.rmtree(temp, ignore_errors=True)


@pytest.fixture
def submit(head, environment, tmp_path):
    """`flexray submit` in a folder that has no source tree, to its end."""

    def submit(*arguments, address=head.dashboard, env=environment):
        command = [sys.executable, "-m", "flexray.cli", "submit", "--no-install", *arguments]
        command += [f"--address={address}"] if address else []
        return subprocess.run(
            command,
            env=env | {"PYTHONPATH": str(PROJECT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return submit


PLUGIN = """
import sys
import flexray
print("plug-in:", __file__, "flexray:", flexray.__file__, file=sys.stderr)
"""


def test_a_submitted_night_is_followed_to_its_end_and_answers_every_row_once(
    submit, environment, tiny_model, tmp_path
):
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(ROWS)])
    mounted = tmp_path / "recipes" / "..2026_01_31"  # a folder of links, as Kubernetes mounts a ConfigMap
    mounted.mkdir(parents=True)
    tree = make_tree(tmp_path / "out", tiny_model, data)
    write_config(mounted, tree | {"plugins": ["plugin.py"]})
    (tmp_path / "recipes" / "..data").symlink_to(mounted.name)
    (tmp_path / "recipes" / "config.yaml").symlink_to("..data/config.yaml")
    (tmp_path / "recipes" / "plugin.py").write_text(PLUGIN)
    done = submit("--job=nightly", "recipes", "--set=generation.max_new_tokens=3", "--verify", "--id=night-1")
    assert done.returncode == 0, done.stdout + done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first == "night-1: submitted: python -m flexray nightly --verify config.yaml"
    assert "complete=0 answered=1 held=0 failed=0" in done.stdout.splitlines()
    assert last == "night-1: SUCCEEDED"
    (imported,) = re.findall("plug-in: (.*)/recipes/plugin.py flexray: (.*)/flexray/__init__.py", done.stdout)
    assert imported[0] == imported[1]
    assert "_ray_pkg_" in imported[0]  # both were brought along
    assert environment["RAY_AUTH_TOKEN"] not in done.stdout + done.stderr
    assert_whole(tmp_path / "out", ROWS)
    assert max(len(row["token_ids"]) for row in rows_of(tmp_path / "out").values()) <= 3


@pytest.mark.slow  # a second job on the same cluster: what differs is Ray's own command, and the script
def test_a_job_submitted_with_rays_own_command_answers_every_row_once(
    head, environment, tiny_model, tmp_path
):
    project = tmp_path / "project"
    for name in ("flexray", "jobs"):
        shutil.copytree(PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(ROWS)])
    config = write_config(tmp_path, make_tree(tmp_path / "out", tiny_model, data))
    command = [RAY, "job", "submit", f"--address={head.dashboard}", f"--working-dir={project}", "--"]
    command += [sys.executable, "jobs/generate.py", "--config", str(config)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"[{ROWS}/{ROWS} rows" in done.stdout
    assert_whole(tmp_path / "out", ROWS)


def test_a_job_that_fails_gives_its_exit_code_and_its_id_is_not_taken_twice(
    submit, head, environment, tiny_model, tmp_path
):
    write_config(tmp_path, make_tree(tmp_path / "out", tiny_model, tmp_path / "none.jsonl"))
    cluster = {"RAY_ADDRESS": head.address}  # that of the cluster finds its dashboard
    done = submit("--job=evaluate", "config.yaml", address=None, env=environment | cluster)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"error: {tmp_path}/out: holds no run" in done.stdout
    name, ended = done.stdout.splitlines()[-1].split(": ", 1)
    assert re.fullmatch(r"flexray-evaluate-out-\d{4}-\d\d-\d\d-[0-9a-f]{6}", name)
    assert ended == "FAILED: exit code 2"
    again = submit("--job=evaluate", "config.yaml", "--no-wait")
    assert (again.returncode, again.stdout) == (2, "")
    (message,) = [line for line in again.stderr.splitlines() if line.startswith("error: ")]
    assert message == (
        f"error: {name}: this cluster has had a job of this id, and Ray takes none twice; it is FAILED. "
        f"If there is more to do, submit it with another: --id {name}-b"
    )


def test_a_submission_that_is_ended_stops_its_job_too_if_told_so(head, environment, tiny_model, tmp_path):
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(ROWS)])
    write_config(tmp_path, make_tree(tmp_path / "out", tiny_model, data))
    command = [sys.executable, "-m", "flexray.cli", "submit", "--no-install", "config.yaml", "--stop-job"]
    command += [f"--address={head.dashboard}", "--id=stopped-1"]
    env = environment | {"PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=env, cwd=tmp_path, **pipes)
    first = process.stdout.readline()  # its job has just begun to start
    process.terminate()
    _, said = process.communicate(timeout=120)
    assert first.startswith("stopped-1: submitted: "), first + said
    assert process.returncode == 143
    assert said.splitlines()[-1] == (
        "stopped by SIGTERM: the job stopped-1 is stopped, too; submitted again, it goes on"
    )
    asked = [RAY, "job", "status", f"--address={head.dashboard}", "stopped-1"]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    end = time.monotonic() + 60
    while "was stopped" not in subprocess.run(asked, env=environment, **output).stdout:
        assert time.monotonic() < end


@pytest.mark.parametrize("stop", [True, False])
def test_a_submission_that_is_ended_before_its_job_is_known_to_be_accepted_says_what_becomes_of_it(
    head, environment, tiny_model, tmp_path, stop
):
    write_config(tmp_path, make_tree(tmp_path / "out", tiny_model, tmp_path / "none.jsonl"))
    job = f"early-{stop}"
    command = [sys.executable, "-m", "flexray.cli", "submit", "--no-install", "--job=evaluate", "config.yaml"]
    command += [f"--id={job}", *["--stop-job"] * stop]
    env = environment | {"PYTHONPATH": str(PROJECT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    submitted = threading.Event()
    with late_to_say_so(head.dashboard, submitted) as address:
        process = subprocess.Popen([*command, f"--address={address}"], env=env, cwd=tmp_path, **pipes)
        assert submitted.wait(60)
        process.terminate()
        printed, said = process.communicate(timeout=120)
    assert (process.returncode, printed) == (143, "")
    becomes = {
        True: f"the job {job} is stopped, too; submitted again, it goes on",
        False: "the job goes on, if the cluster has taken it; to end it: ray job stop "
        f"--address {address} {job}",
    }
    assert said.splitlines()[-1] == f"stopped by SIGTERM: {becomes[stop]}"


def test_who_has_not_the_token_is_refused_in_one_line_and_told_where_it_belongs(
    submit, head, environment, tiny_model, tmp_path
):
    write_config(tmp_path, make_tree(tmp_path / "out", tiny_model, tmp_path / "none.jsonl"))
    others = {key: value for key, value in environment.items() if not key.startswith("RAY_AUTH")}
    another = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "another"}
    for address, token in (
        (head.dashboard, another),
        (head.dashboard.removeprefix("http://"), {}),
        (head.address, another),
    ):
        done = submit("config.yaml", address=address, env=others | token)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: --address")
        assert address in line
        assert " requires a token, but " in line
        assert "Set RAY_AUTH_MODE=token, and put the token into RAY_AUTH_TOKEN" in line


def test_what_the_probes_of_the_manifests_ask_is_answered_without_a_token(head):
    spec = cluster_spec("cluster")
    pods = [group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    probes = [
        pod["spec"]["containers"][0][f"{kind}Probe"] for pod in pods for kind in ("liveness", "readiness")
    ]
    servers = {8265: head.dashboard, 52365: head.agent}  # by Ray's default port
    urls = {servers[probe["httpGet"]["port"]] + probe["httpGet"]["path"] for probe in probes}
    assert len(urls) == 2
    for url in urls:
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert answer.status == 200


JOIN = """
import sys
from flexray.config import RayConfig
from flexray.pipeline.ray_connection import connect_ray
try:
    connect_ray(RayConfig(address=sys.argv[1]))
    print("joined")
except ValueError as e:
    print(e)
"""


def test_a_cluster_is_joined_with_its_token_and_says_so_if_it_gets_none_or_another(
    head, environment, tmp_path
):
    def join(token):
        tokens = {"RAY_AUTH_TOKEN": token} if token else {}
        env = environment | {"RAY_AUTH_TOKEN": "", "HOME": str(tmp_path)} | tokens
        command = [sys.executable, "-c", JOIN, head.address]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)

    assert "joined" in join(environment["RAY_AUTH_TOKEN"]).stdout
    for token, found in (("b" * 64, "the one in RAY_AUTH_TOKEN is not the right one"), ("", "none is set")):
        refused = join(token)
        assert f"cluster at {head.address} requires a token, but {found}" in refused.stdout
        assert refused.stderr == ""  # nothing of gRPC's
