"""The shell scripts: what they run, what they do about a signal or a failure, and their exit codes."""

import os
import signal
import subprocess

import pytest

from tests.unit.cluster.manifests import CLUSTER
from tests.unit.cluster.tools import stand_in, told, tool, wait_for, waiting

SCRIPTS = sorted(CLUSTER.glob("*.sh"))


def test_the_shell_scripts_are_sound():
    assert [path.name for path in SCRIPTS] == ["check.sh", "once-more.sh", "slurm.sh", "up.sh"]
    assert all(os.access(path, os.X_OK) for path in SCRIPTS)
    done = subprocess.run([tool("shellcheck"), *SCRIPTS], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_without_what_to_do_a_script_says_how_it_is_used(script):
    done = subprocess.run([script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"cluster/{script.name} " in done.stderr


@pytest.mark.parametrize(
    ("codes", "ends_with"),
    [
        ((0,), 0),
        ((2,), 2),
        ((143,), 143),
        ((130,), 130),
        ((1, 0), 0),
        ((137, 0), 0),
        ((1, 2), 2),
        ((1, 1), 1),
    ],
)
def test_a_failure_that_may_pass_is_tried_once_more_and_a_typo_is_not(codes, ends_with, tmp_path):
    text = f"codes=({' '.join(map(str, codes))})\nexit ${{codes[$(wc -l < {tmp_path}/told) - 1]}}"
    command = stand_in(tmp_path, "flexray", text)
    done = subprocess.run(
        [CLUSTER / "once-more.sh", command, "nightly", "a b"], timeout=60, capture_output=True
    )
    assert done.returncode == ends_with
    assert told(tmp_path) == ["flexray nightly a b"] * len(codes)


def test_a_night_that_is_stopped_is_not_begun_again_and_has_the_time_to_end(tmp_path):
    # as `ray job stop` does: the shell and what it runs get the signal
    command = stand_in(tmp_path, "flexray", waiting("sleep 0.3; echo ended >> $TOLD; exit 7"))
    process = subprocess.Popen([CLUSTER / "once-more.sh", command], start_new_session=True)
    wait_for(lambda: "flexray is ready" in told(tmp_path))
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=30) == 7
    assert told(tmp_path) == ["flexray ", "flexray is ready", "ended"]


def test_the_check_plans_each_recipe_and_ends_with_the_worst_code(tmp_path):
    recipes = tmp_path / "recipes"
    mounted = recipes / "..2026_01_31"  # a folder of links, as Kubernetes mounts a ConfigMap
    mounted.mkdir(parents=True)
    for name in ("a.yaml", "b.yaml", "c.yaml", "notes.txt"):
        (mounted / name).touch()
        (recipes / name).symlink_to(mounted / name)
    stand_in(tmp_path, "flexray", "case $2 in *b.yaml) exit 2 ;; esac")
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([CLUSTER / "check.sh", recipes], env=env, timeout=60, capture_output=True)
    assert done.returncode == 2
    assert told(tmp_path) == [f"flexray plan {recipes}/{name}.yaml" for name in "abc"]
    done = subprocess.run([CLUSTER / "check.sh", tmp_path], timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path}: a folder without a recipe, *.yaml\n")
