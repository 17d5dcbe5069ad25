"""The scripts of jobs/ are commands of flexray."""

import subprocess
import sys

from tests.unit.evaluation.builders import answered, commit_run


def job(request, *arguments: str, name: str = "evaluate") -> subprocess.CompletedProcess[str]:
    root = request.config.rootpath
    script = [sys.executable, str(root / "jobs" / f"{name}.py"), *arguments]
    return subprocess.run(script, capture_output=True, text=True, cwd=root, env={"PYTHONPATH": str(root)})


def test_it_prints_and_writes_what_the_command_does(request, tmp_path):
    commit_run(str(tmp_path / "out"), [answered("avg", 0, "Berlin"), answered("avg", 1, "Rome")])
    done = job(request, str(tmp_path / "out"), "--json", str(tmp_path / "found.json"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "50.0%" in done.stdout
    assert '"exact_match"' in (tmp_path / "found.json").read_text()


def test_a_users_fault_is_a_message_and_exit_code_2(request, tmp_path):
    done = job(request, str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path}/none: holds no run")


def test_generate_is_flexray_run(request, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{{output: out, data: {{name: d, files: none.jsonl}}, model: {{path: {tmp_path}}}}}")
    done = job(request, "--config", str(recipe), name="generate")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path}: has no config.json")
