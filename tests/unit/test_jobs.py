"""The scripts of jobs/ are commands of flexray."""

import runpy
import subprocess
import sys

import pytest

from tests.unit.evaluation.builders import answered, commit_run


def job(request, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = request.config.rootpath
    script = [sys.executable, str(root / "jobs" / "evaluate.py"), *arguments]
    return subprocess.run(script, capture_output=True, text=True, cwd=root, env={"PYTHONPATH": str(root)})


@pytest.fixture
def job_here(request, monkeypatch, capsys):
    """Runs a script in this process: exit code, output, errors."""

    def run(*arguments: str, name: str = "evaluate") -> tuple[object, str, str]:
        script = str(request.config.rootpath / "jobs" / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(script, run_name="__main__")
        return ended.value.code, *capsys.readouterr()

    return run


def test_it_prints_and_writes_what_the_command_does(request, tmp_path):
    commit_run(str(tmp_path / "out"), [answered("avg", 0, "Berlin"), answered("avg", 1, "Rome")])
    done = job(request, str(tmp_path / "out"), "--json", str(tmp_path / "found.json"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "50.0%" in done.stdout
    assert '"exact_match"' in (tmp_path / "found.json").read_text()


def test_a_users_fault_is_a_message_and_exit_code_2(job_here, tmp_path):
    code, said, told = job_here(str(tmp_path / "none"))
    assert (code, said) == (2, "")
    assert told.startswith(f"error: {tmp_path}/none: holds no run")


def test_generate_is_flexray_run(job_here, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{{output: out, data: {{name: d, files: none.jsonl}}, model: {{path: {tmp_path}}}}}")
    code, said, told = job_here("--config", str(recipe), name="generate")
    assert (code, said) == (2, "checking methods, output folder, data files and model\n")
    assert told == "error: none.jsonl: no such file. Correct data.files.\n"
