"""The commands that manifests, crontab and README give: scripts that exist, with options that exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flexray.cli.submit_command import take_apart
from flexray.config import load_config
from flexray.errors import ConfigError
from flexray.runs.nightly import find_recipes
from tests.conftest import PROJECT
from tests.unit.cluster.manifests import CLUSTER, JOBS, resource, submitter
from tests.unit.cluster.tools import parse

UP = CLUSTER / "up.sh"
MADE_BY_THE_READER = {"jobs/recipes/night.yaml", "my.yaml", "recipes/"}


def submitted(words: list[str]) -> tuple[dict, list[str]]:
    """The options of a `flexray submit`, and the recipes of its job."""
    params = parse(words)
    return params, list(take_apart(params["job"], params["words"]).recipes)


def readme_commands() -> list[list[str]]:
    """Each command of the README's code blocks that is flexray's or Ray's, in words."""
    text = (CLUSTER / "README.md").read_text()
    blocks = re.findall(r"(?:^    .*\n)+", text, re.M)
    lines = re.sub(r" *\\\n *", " ", "".join(blocks)).splitlines()
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        starts = [i for i, word in enumerate(words) if Path(word).name in ("flexray", "ray")]
        if starts and (starts[0] == 0 or "=" in words[starts[0] - 1]):  # behind VARIABLE=.. too
            found.append([Path(words[starts[0]]).name, *words[starts[0] + 1 :]])
    return found


@pytest.mark.parametrize("words", readme_commands(), ids=" ".join)
def test_each_command_of_the_readme_has_options_that_exist(words):
    if words[:2] == ["flexray", "submit"]:
        params, recipes = submitted(words)
    else:
        params = parse(words)
        recipes = [*params.get("config", ()), *params.get("recipes", ())]
    for name in recipes:
        assert (PROJECT / name).exists() or name in MADE_BY_THE_READER, name
    entrypoint = params.get("entrypoint") or ()
    if entrypoint:
        assert entrypoint[0] == "python"
        script = PROJECT / entrypoint[1]
        assert script.is_file()
        parse(["flexray", {"generate.py": "run"}.get(script.name, script.stem), *entrypoint[2:]])


def test_the_readme_has_commands_of_each_kind():
    kinds = {" ".join(words[: 3 if words[0] == "ray" else 2]) for words in readme_commands()}
    assert {"flexray submit", "flexray nightly", "flexray verify", "ray job submit", "ray job logs"} <= kinds


def test_the_cron_job_submits_what_the_image_has():
    (container,) = submitter("nightly")["spec"]["containers"]
    params, recipes = submitted(container["command"])
    assert (params["job"], params["wait"], params["install"]) == ("nightly", True, False)
    assert params["stop_job"]  # else what goes on would hold the recipes' folders when it is tried again
    assert find_recipes([str(PROJECT / path) for path in recipes])
    cluster = resource("nightly", "RayCluster")["metadata"]["name"]
    assert params["address"] == f"http://{cluster}-head-svc:8265"
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert [f"{container['workingDir']}/{path}" for path in recipes] == mounts
    assert params["id_"] == "$(POD_NAME)"


def mounts_of_head(job):
    (head,) = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    return {mount["mountPath"] for mount in head["volumeMounts"]}


@pytest.mark.parametrize("name", [name for name in JOBS if name != "cpu"])
def test_the_jobs_run_a_night_of_the_mounted_recipes_in_a_script_of_the_image(name):
    again, *words = shlex.split(JOBS[name]["entrypoint"])
    assert os.access(PROJECT / again.removeprefix("/opt/flexray/"), os.X_OK)
    assert words[:2] == ["flexray", "nightly"]
    assert set(parse(words)["recipes"]) <= mounts_of_head(JOBS[name])


def test_the_try_out_answers_the_demos_questions_of_the_image():
    params = parse(shlex.split(JOBS["cpu"]["entrypoint"]))
    here = [value.replace("/opt/flexray", str(PROJECT)) for value in params["set_"]]
    (recipe,) = [path.replace("/opt/flexray", str(PROJECT)) for path in params["recipe"]]
    config = load_config(recipe, here)
    assert config.data.files == (str(PROJECT / "jobs" / "data" / "demo.jsonl"),)
    assert config.model.path == str(PROJECT / "models" / "smollm2-135m")
    assert any(config.output.startswith(f"{mount}/") for mount in mounts_of_head(JOBS["cpu"]))


def test_the_check_reads_the_mounted_recipes_with_a_script_of_the_image():
    (container,) = submitter("check")["spec"]["containers"]
    script, folder = container["command"]
    assert os.access(PROJECT / script.removeprefix("/opt/flexray/"), os.X_OK)
    mounts = {mount["mountPath"]: mount["readOnly"] for mount in container["volumeMounts"]}
    assert mounts == {folder: True, "/mnt/qa": True}


def test_the_check_plans_for_the_cluster_and_not_for_its_own_pod(tiny_model, tmp_path):
    (container,) = submitter("check")["spec"]["containers"]
    env = os.environ | {variable["name"]: variable["value"] for variable in container["env"]}
    recipe = [CLUSTER / "recipes" / "questions.yaml", PROJECT / "jobs" / "recipes" / "demo.yaml"]
    here = {"model.path": tiny_model, "output": tmp_path / "out"}
    words = [f"--set={key}={value}" for key, value in here.items()]
    words += [f"--config={path}" for path in recipe]
    done = subprocess.run(
        [sys.executable, "-m", "flexray", "plan", *words],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a GPU has memory that is not known" in done.stdout


def test_the_crontab_line_is_one_that_cron_takes():
    (line,) = [line for line in (CLUSTER / "crontab").read_text().splitlines() if not line.startswith("#")]
    assert "%" not in line  # cron makes a newline of it
    *times, command = line.split(maxsplit=5)
    assert all(re.fullmatch(r"\d+|\*", part) for part in times)
    folder, flexray = command.split(" && ")
    assert folder == "cd /srv/flexray"
    variable, *words = shlex.split(flexray)
    assert variable == "RAY_AUTH_MODE=token"
    _, recipes = submitted(["flexray", *words[1:]])
    assert words[0] == ".venv/bin/flexray"
    assert find_recipes([str(PROJECT / path) for path in recipes])


def test_a_folder_stands_for_its_recipes_in_order(tmp_path):
    (tmp_path / "b.yaml").touch()
    (tmp_path / "a.yaml").touch()
    (tmp_path / "parts").mkdir()
    with pytest.raises(ConfigError, match=r"parts: a folder without a recipe"):
        find_recipes([str(tmp_path / "parts")])
    found = find_recipes([str(tmp_path), "s3://bucket/c.yaml", str(tmp_path / "none.yaml")])
    assert found == [
        f"{tmp_path}/a.yaml",
        f"{tmp_path}/b.yaml",
        "s3://bucket/c.yaml",
        f"{tmp_path}/none.yaml",
    ]


@pytest.fixture
def up(tmp_path):
    """Runs up.sh against machines that only say what they were told; returns it as (machine, command)."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0123456789abcdef")
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nprintf "%s|%s\\n" "$1" "$2" >> "$HOME/told"; cat >> "$HOME/sent"\n')
    ssh.chmod(0o700)

    def up(*arguments):
        env = os.environ | {"HOME": str(tmp_path), "FLEXRAY_SSH": str(ssh)}
        done = subprocess.run(
            [str(UP), *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "0123456789abcdef" not in done.stdout
        told = (tmp_path / "told").read_text()
        assert "0123456789abcdef" not in told
        (tmp_path / "told").unlink()
        return [tuple(line.split("|", 1)) for line in told.splitlines()], (tmp_path / "sent").read_text()

    return up


def test_up_gives_all_machines_the_token_and_starts_the_head_before_the_workers(up):
    told, sent = up("up", "me@head", "w1", "w2")
    assert [machine for machine, _ in told] == ["me@head", "w1", "w2"] * 2
    assert sent == "0123456789abcdef" * 3
    starts = [re.search(r"ray (start .*?) 2>&1", command)[1].split() for _, command in told[3:]]
    head, *workers = [parse(["ray", *words]) for words in starts]
    assert (head["head"], head["port"], head["dashboard_host"]) == (True, 6379, "127.0.0.1")
    assert [worker["address"] for worker in workers] == ["head:6379"] * 2
    for _, command in told:
        assert command.startswith(
            "cd /srv/flexray || exit 1; set -a; RAY_AUTH_MODE=token; PATH=$PWD/.venv/bin:$PATH; "
        )


def test_down_ends_the_workers_before_the_head_and_status_asks_the_head(up):
    told, _ = up("down", "head", "w1", "w2")
    assert [machine for machine, _ in told] == ["w1", "w2", "head"]
    assert all(command.endswith("; .venv/bin/ray stop > /dev/null") for _, command in told)
    ((machine, command),), _ = up("status", "head")
    assert machine == "head"
    parse(shlex.split(command.rpartition("; ")[2].removeprefix(".venv/bin/")))


@pytest.mark.parametrize("arguments", [[], ["up"], ["reboot", "head"]])
def test_up_without_what_to_do_says_how_it_is_used(arguments):
    done = subprocess.run([str(UP), *arguments], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cluster/up.sh up HEAD [WORKER ..]" in done.stderr
