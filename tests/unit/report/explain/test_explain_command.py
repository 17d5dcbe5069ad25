"""`flexray explain`: what it prints and writes, and what it refuses."""

import json

import yaml
from typer.testing import CliRunner

from flexray.cli import app


def run(tree, tmp_path, *arguments):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(tree))
    return CliRunner().invoke(app, ["explain", "-c", str(config), *arguments])


def test_a_row_is_printed_and_written_as_json(tree, tmp_path):
    file = tmp_path / "made" / "row.json"
    asked = ("--row", "qa/test/a", "--method", "4", "--top", "2", "--json", str(file))
    done = run(tree, tmp_path, *asked)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].strip() == "qa/test/a"
    assert "\x1b" not in done.output
    assert "the same best token as the engine at each step" in done.output
    assert lines[-1] == f"json: {file}"
    tree = json.loads(file.read_text())
    assert (tree["row"]["row_id"], tree["row"]["method"], tree["fusion"]) == ("qa/test/a", "max", "max")
    assert len(tree["answers"][0]["steps"][0]["top"]) == 2


def test_a_fault_of_the_user_is_one_line_and_exit_code_2(tree, tmp_path):
    done = run(tree, tmp_path, "--row", "9")
    assert done.exit_code == 2
    assert done.output == "error: --row 9: the data set has 4 rows, counted from 1.\n"
