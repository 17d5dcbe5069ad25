"""The command line: a fault of the user's is one message and exit code 2, before anything expensive."""

import errno
import json
import re
import subprocess
import sys
import warnings

import pytest
import typer
import yaml
from typer.testing import CliRunner

import flexray
from flexray.cli import app
from flexray.cli.app import reports_user_errors
from flexray.sink.records import manifest_name
from flexray.storage.error_messages import StorageError
from tests.unit.sink.builders import PLAN_FILE, A, B, finished, start
from tests.unit.sink.conftest import folder  # noqa: F401  a fixture

RECORD = {"id": "a", "question": "Who?", "paraphrases": ["Which person?"], "answers": ["Ada"]}


@pytest.fixture
def tree(tmp_path, tiny_model):
    """A configuration without a fault."""
    data = tmp_path / "questions.jsonl"
    data.write_text(json.dumps(RECORD) + "\n")
    return {
        "output": str(tmp_path / "out"),
        "data": {"name": "qa", "files": [str(data)]},
        "model": {"path": str(tiny_model)},
        "engine": {"backend": "sdpa"},
        "ray": {"address": "none:0"},  # a test that gets as far as Ray has gone too far
    }


BEGUN = {
    "checking methods, output folder, data files and model",
    "reading the data set qa/test, and planning its rows",
}
"""All that a run may have said before it is refused."""


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Runs a configuration that must be refused, and returns the message."""

    def no_ray(*_):
        raise AssertionError("Ray was asked for")

    monkeypatch.setattr("flexray.runs.run.connect_ray", no_ray)

    def refused(tree, *arguments):
        config = tmp_path / "job.yaml"
        config.write_text(yaml.safe_dump(tree))
        result = CliRunner().invoke(app, ["run", "--config", str(config), *arguments])
        assert result.exit_code == 2, result.output
        assert isinstance(result.exception, SystemExit)
        assert set(result.stdout.splitlines()) <= BEGUN
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("error: ") == 1
        assert "Traceback" not in result.stderr
        return result.stderr

    return refused


def test_a_missing_data_file_is_named(tree, refused, tmp_path):
    tree["data"]["files"] = [str(tmp_path / "none.jsonl")]
    assert f"{tmp_path}/none.jsonl: no such file. Correct data.files." in refused(tree)


def test_a_glob_without_a_match_is_named(tree, refused, tmp_path):
    tree["data"]["files"] = [str(tmp_path / "*.parquet")]
    assert f"{tmp_path}/*.parquet: no file matches this glob" in refused(tree)


@pytest.mark.parametrize("role", ["id", "question", "paraphrases", "answers"])
def test_a_field_that_no_record_has_is_named_with_those_there_are(tree, refused, role):
    tree["data"]["fields"] = {role: "nosuch"}
    message = refused(tree)
    assert "questions.jsonl: no record has the field 'nosuch'" in message
    assert f"Set data.fields.{role} to one of: 'id', 'question', 'paraphrases', 'answers'" in message


def test_an_empty_data_file_is_named(tree, refused, tmp_path):
    (tmp_path / "questions.jsonl").write_text("\n")
    assert f"{tmp_path}/questions.jsonl: no rows in any file" in refused(tree)


def test_a_missing_configuration_is_named(tmp_path):
    result = CliRunner().invoke(app, ["run", "--config", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert f"error: {tmp_path}/none.yaml: no such configuration file" in result.stderr


def test_an_unknown_key_is_named_with_the_known_ones(tree, refused, tmp_path):
    tree["data"]["shard_row"] = 3
    message = refused(tree)
    assert f"{tmp_path}/job.yaml" in message
    assert "data.shard_row" in message
    assert re.search(r"known here: .*shard_rows", message)


def test_a_value_of_the_wrong_type_is_named(tree, refused):
    tree["data"]["shard_rows"] = "many"
    message = refused(tree)
    assert "data.shard_rows" in message
    assert "'many'" in message


def test_a_bad_override_is_named(tree, refused):
    assert "engine.backend" in refused(tree, "--set", "engine.backend=flash")


def test_a_missing_model_folder_is_named(tree, refused, tmp_path):
    tree["model"]["path"] = str(tmp_path / "nomodel")
    assert f"{tmp_path}/nomodel: no such model folder" in refused(tree)


def test_a_model_that_is_no_llama_is_refused(tree, refused, tmp_path):
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text('{"model_type": "gpt2"}')
    tree["model"]["path"] = str(tmp_path / "gpt2")
    message = refused(tree)
    assert f"{tmp_path}/gpt2/config.json: model_type 'gpt2'" in message
    assert "LLaMA" in message


@pytest.mark.parametrize(
    "output", ["{tmp}/file", "{tmp}/file/below", "/proc/flexray/out", "nosuch://bucket/out", ""]
)
def test_an_output_folder_that_cannot_be_written_is_told_before_the_model_is_looked_at(
    tree, refused, tmp_path, output
):
    (tmp_path / "file").write_text("in the way")
    tree["output"] = output.format(tmp=tmp_path)
    tree["model"]["path"] = str(tmp_path / "nomodel")
    tree["data"]["files"] = [str(tmp_path / "none.jsonl")]
    message = refused(tree)
    assert tree["output"] in message
    assert "output folder" in message
    assert "nomodel" not in message
    assert "none.jsonl" not in message


def test_an_output_folder_of_something_else_is_left_alone(tree, refused, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    message = refused(tree, "--fresh")
    assert f"{tmp_path}/out: is not empty and holds no run (thesis.txt)" in message
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def verify(path):
    result = CliRunner().invoke(app, ["verify", str(path)])
    return result.exit_code, result.stdout.splitlines(), result.stderr


def test_verify_of_a_whole_run_is_0(folder):  # noqa: F811
    finished(folder)
    code, lines, _ = verify(folder)
    assert code == 0
    assert lines == ["rows=12 missing=0 doubled=0 damaged=0 unaccounted=0"]


def test_verify_of_a_run_with_a_shard_missing_is_1_and_names_it(folder, tmp_path):  # noqa: F811
    finished(folder)
    folder.remove(manifest_name(B.shard_id))
    code, lines, _ = verify(folder)
    assert code == 1
    assert lines[-1] == "rows=8 missing=4 doubled=0 damaged=0 unaccounted=0"
    assert f"_manifests/{B.shard_id}.json: shard {B.shard_id} is not committed" in lines[0]
    assert "1 file(s) of failed attempts and of withdrawn shards" in lines[1]


def test_verify_as_json_has_the_counts_and_each_finding(folder, tmp_path):  # noqa: F811
    finished(folder)
    folder.remove(PLAN_FILE)
    result = CliRunner().invoke(app, ["verify", "--json", str(tmp_path / "out")])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["ok"], report["rows"], report["damaged"]) == (False, 12, 1)
    (finding,) = report["findings"]
    assert finding["kind"] == "plan_missing"
    assert finding["path"] == str(tmp_path / "out" / PLAN_FILE)
    assert finding["advice"].startswith("Run again")


def test_verify_of_many_findings_prints_the_first_and_how_many_more_there_are(folder):  # noqa: F811
    start(folder, [f"qa/test/{i}" for i in range(130)], shard_rows=1)
    code, lines, _ = verify(folder)
    assert code == 1
    assert len(lines) == 102
    assert lines[-2:] == [
        "... and 30 more findings; --json has them all",
        "rows=0 missing=130 doubled=0 damaged=0 unaccounted=0",
    ]


@pytest.mark.parametrize("dry", [True, False])
def test_repair_prints_a_line_for_each_thing_moved_and_the_counts(folder, tmp_path, dry):  # noqa: F811
    finished(folder)
    (path,) = (tmp_path / "out" / "data").glob(f"{B.shard_id}-*.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    arguments = ["repair", str(tmp_path / "out"), *["--dry-run"] * dry]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    moves = result.stdout.splitlines()[:-1]
    assert len(moves) == 2
    assert moves[0].startswith(
        f"{'would move' if dry else 'moving'} _manifests/{B.shard_id}.json to _quarantine/"
    )
    assert result.stdout.splitlines()[-1] == "quarantined=2 rows_to_redo=4"
    assert path.exists() == dry
    assert verify(folder)[1][-1] == f"rows=8 missing=4 doubled=0 damaged={int(dry)} unaccounted=0"


def test_repair_moves_young_orphans_if_asked(folder, tmp_path):  # noqa: F811
    finished(folder)
    folder.write_bytes(f"data/{B.shard_id}-{'0' * 32}.parquet", b"")
    last = [
        CliRunner().invoke(app, ["repair", str(tmp_path / "out"), *more]).stdout.splitlines()[-1]
        for more in ([], ["--orphans"])
    ]
    assert last == ["quarantined=0 rows_to_redo=0", "quarantined=1 rows_to_redo=0"]


def test_repair_of_what_is_no_run_is_2(tmp_path):
    result = CliRunner().invoke(app, ["repair", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path}: holds no run")
    assert list(tmp_path.iterdir()) == []


def test_verify_of_a_damaged_file_is_1_and_names_it(folder, tmp_path):  # noqa: F811
    finished(folder)
    (path,) = (tmp_path / "out" / "data").glob(f"{A.shard_id}-*.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    code, lines, _ = verify(folder)
    assert code == 1
    assert lines[-1] == "rows=8 missing=4 doubled=0 damaged=1 unaccounted=0"
    assert str(path) in lines[0]


@pytest.mark.parametrize("name", ["none", "file", "nosuch://x"])
def test_verify_of_what_is_no_run_is_2(tmp_path, name):
    (tmp_path / "file").write_text("")
    path = name if "://" in name else tmp_path / name
    code, lines, stderr = verify(path)
    assert code == 2
    assert lines == []
    assert stderr.startswith(f"error: {path}")


def test_show_mask_draws_the_prompt_of_a_row_in_the_terminal_and_as_png(tree, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(tree))
    png = tmp_path / "pictures" / "mask.png"
    done = CliRunner().invoke(app, ["show-mask", "--config", str(config), "--row", "1", "--png", str(png)])
    assert done.exit_code == 0, done.output
    assert "qa/test/a: Who?" in done.output
    for segment in ("context", "P1", "answer"):
        assert segment in done.output
    assert png.read_bytes().startswith(b"\x89PNG")


def test_show_mask_of_a_row_that_is_not_there_says_how_many_there_are(tree, refused, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(tree))
    done = CliRunner().invoke(app, ["show-mask", "--config", str(config), "--row", "2"])
    assert done.exit_code == 2
    assert "--row 2: the data set has 1 rows" in done.output


@pytest.fixture
def ending():
    """Runs a command that ends with an error: exit code, and what is on standard error."""

    def ending(error):
        small = typer.Typer()

        @small.command()
        @reports_user_errors
        def fail() -> None:
            raise error

        result = CliRunner().invoke(small)
        assert result.stdout == ""
        return result.exit_code, result.stderr

    return ending


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (StorageError("s3://me:secret@b/x: busy. Wait."), "s3://***@b/x: busy. Wait."),
        (PermissionError(13, "Permission denied", "/x"), "[Errno 13] Permission denied: '/x'"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_a_file_or_storage_that_fails_is_one_message_and_exit_code_2(ending, error, message):
    assert ending(error) == (2, f"error: {message}\n")


def test_whoever_has_read_enough_of_the_output_gets_no_message(ending):
    assert ending(BrokenPipeError(errno.EPIPE, "Broken pipe")) == (1, "")


def test_an_old_key_is_warned_of_in_one_line(tree, tmp_path):
    recipe = tmp_path / "old.yaml"
    recipe.write_text(yaml.safe_dump(tree | {"engine": {"backend": "sdpa", "max_rows": 8}}))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = CliRunner().invoke(app, ["plan", "--config", str(recipe), "--sample", "1"])
    warning = f"warning: {recipe}: engine.max_rows is now engine.max_num_seqs. "
    assert [line for line in done.stderr.splitlines() if line.startswith(warning)]
    assert "FutureWarning" not in done.stderr
    assert "warnings.warn" not in done.stderr


def test_warnings_of_others_stay_as_python_shows_them(capfd):
    @reports_user_errors
    def command():
        warnings.warn_explicit("of a library", FutureWarning, "/lib/other.py", 1)

    with pytest.warns(FutureWarning, match="of a library"):
        command()
    assert "warning: " not in capfd.readouterr().err


def test_the_version_is_printed():
    command = [sys.executable, "-m", "flexray", "--version"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, f"flexray {flexray.__version__}\n")


def test_the_recipe_is_an_argument_and_later_ones_win(tree, tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(yaml.safe_dump(tree))
    second.write_text("engine: {backnd: flex}\n")
    for arguments in ([str(first), str(second)], [str(first), "-c", str(second)]):
        result = CliRunner().invoke(app, ["run", *arguments])
        assert result.exit_code == 2
        assert "engine.backnd: Extra inputs are not permitted. Unknown key (did you mean backend?)" in (
            result.stderr
        )


@pytest.mark.parametrize("command", ["run", "plan", "explain", "show-mask", "retry-errors"])
def test_a_command_without_a_recipe_says_so(command):
    row = ["--row", "1"] if command == "explain" else []
    result = CliRunner().invoke(app, [command, *row])
    assert result.exit_code == 2
    assert "no recipe is named. Give a YAML file" in result.stderr


def test_h_is_help_and_a_command_that_is_nearly_right_is_named():
    assert "Usage" in CliRunner().invoke(app, ["run", "-h"]).stdout
    assert "Did you mean 'evaluate'?" in CliRunner().invoke(app, ["evalute", "out"]).stderr
