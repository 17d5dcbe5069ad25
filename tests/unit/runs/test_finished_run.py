"""A finished run whose files are lost afterwards: each command says so, and the same run mends it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flexray.cli import app
from tests.ray.jobs import make_config, make_tree, question, write
from tests.runs import run_shards

ROWS = 8


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model):
    """The files of a run in three shards. Do not change them."""
    place = tmp_path_factory.mktemp("finished")
    data = write(place / "qa.jsonl", [question(i) for i in range(ROWS)])
    run_shards(make_config(place / "out", tiny_model, data), [0, 1, 2])
    return place


@pytest.fixture
def output_folder(finished, tmp_path):
    """A copy of the output folder."""
    return shutil.copytree(finished / "out", tmp_path / "out")


@pytest.fixture
def flexray(finished, output_folder, tmp_path, tiny_model):
    """Calls a command, with the run's recipe if it wants one: exit code and output."""
    tree = make_tree(output_folder, tiny_model, finished / "qa.jsonl")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))

    def call(command, *arguments):
        if command in ("run", "retry-errors", "plan", "nightly"):
            recipe = str(tmp_path / "recipe.yaml")
            arguments = [*([recipe] if command == "nightly" else ["--config", recipe]), *arguments]
        done = CliRunner().invoke(app, [command, *map(str, arguments)])
        return done.exit_code, done.output

    return call


@pytest.mark.parametrize("command", ["run", "retry-errors", "nightly", "plan"])
@pytest.mark.parametrize("unfinished", [False, True])
def test_lost_data_files_are_said_and_not_taken_for_committed(flexray, output_folder, command, unfinished):
    files = sorted((output_folder / "data").iterdir())
    files[0].write_bytes(b"")
    files[1].unlink()
    if unfinished:
        (output_folder / "_manifests" / "qa-test-000002.json").unlink()
    code, output = flexray(command)
    assert code in (1, 2)
    said = " ".join(output.split())
    assert f"2 of {2 if unfinished else 3} committed shards have lost their rows" in said
    assert f"data/{files[0].name} has 0 bytes" in said
    assert f"data/{files[1].name} is missing" in said
    assert f"`flexray repair {output_folder}`" in said


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")], ids=["lost", "emptied"])
def test_a_run_whose_record_is_lost_goes_on_and_writes_it_again(flexray, output_folder, damage):
    damage(output_folder / "_run.json")
    for command in ("verify", "evaluate", "report"):
        code, output = flexray(command, output_folder)
        assert code
        assert "_run.json" in output
        assert "Run the same recipe again" in " ".join(output.split())
    code, output = flexray("run")
    assert code == 0, output
    assert "its run record was lost, and is written again" in output
    assert "everything is committed" in output
    assert flexray("verify", output_folder)[0] == 0


@pytest.mark.parametrize("command", ["nightly", "plan"])
def test_a_lost_record_stops_neither_a_night_nor_a_plan(flexray, output_folder, command):
    (output_folder / "_run.json").write_bytes(b"{")
    code, output = flexray(command)
    assert code == 0, output
    assert (flexray("verify", output_folder)[0] == 0) == (command == "nightly")  # a plan writes nothing


@pytest.fixture
def other_values(monkeypatch):
    """The code is of another values version from here on."""
    monkeypatch.setattr("flexray.runs.fingerprint.VALUES_VERSION", 99)


@pytest.mark.parametrize("command", ["run", "retry-errors"])
def test_another_values_version_is_refused_and_goes_on_if_that_is_allowed(flexray, other_values, command):
    code, output = flexray(command)
    assert code == 2
    assert "--allow-code-change" in output
    assert flexray(command, "--allow-code-change")[0] == 0


def test_a_night_of_another_values_version_is_refused(flexray, other_values):
    code, output = flexray("nightly")
    assert code == 2
    assert "--allow-code-change" in output


def test_other_settings_are_refused_before_the_model_is_looked_at(
    finished, output_folder, tiny_model, tmp_path
):
    """So within a second or two: importing torch and transformers takes longer than all the rest."""
    tree = make_tree(output_folder, tiny_model, finished / "qa.jsonl", generation={"max_new_tokens": 5})
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(tree))
    code = (
        "import sys; from flexray.cli import app\n"
        "try: app(['run', '--config', sys.argv[1]])\n"
        "except SystemExit as e: print(e.code, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "other.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "generation.max_new_tokens: 4 -> 5" in done.stderr
    assert done.stdout.splitlines()[-1].split() == ["2", "False", "False"]
