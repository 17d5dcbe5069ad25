"""`flexray plan` on the console: exit codes, JSON, and text that is shown as it is."""

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from flexray.cli import app
from flexray.console.checks import print_findings
from tests.plans import make_plan
from tests.ray.jobs import make_tree, question, write, write_config


@pytest.fixture
def planned(tmp_path, tiny_model):
    """Runs `flexray plan` over these records."""

    def plan(*arguments, records=None, **sections):
        data = write(tmp_path / "qa.jsonl", records or [question(i) for i in range(8)])
        config = write_config(tmp_path, make_tree(tmp_path / "out", tiny_model, data, **sections))
        return CliRunner().invoke(app, ["plan", "--config", str(config), *arguments])

    return plan


def test_a_run_that_can_start_is_0_and_says_so_last(planned, tmp_path):
    done = planned("--gpu", "H100")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("ready: ")
    assert lines[-1].endswith(" pass, 0 warn, 0 fail")
    assert ["pass", "output", f"{tmp_path}/out"] in [line.split() for line in lines]
    assert any("8 rows in 3 shards of 1 file; 8 output rows" in line for line in lines)
    assert "Rough, not measured: 2 x" in " ".join(done.stdout.split())
    assert not (tmp_path / "out").exists()


def test_a_run_that_cannot_start_is_2_with_each_problem(planned):
    done = planned("--set", "model.path=no/model", "--set", "data.files=none.jsonl")
    assert done.exit_code == 2
    assert "fail  model        no/model: no such model folder" in done.stdout
    assert "fail  data         none.jsonl: no such file" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("not ready: ")
    assert last.endswith(" 0 warn, 2 fail")


@pytest.mark.parametrize("arguments", [["--gpu", "B9000"], ["--like", "nowhere"], ["--set", "a.b=1"]])
def test_an_option_that_cannot_be_used_is_2_with_one_message(planned, arguments):
    done = planned(*arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_json_has_all_figures_and_problems(planned):
    records = [question(i) for i in (0, 1, 1, 2, 3)]
    few = ("--sample", "5", "--set", "limits.max_error_share=0.5")
    done = planned("--json", "--gpu", "A10", *few, records=records)
    plan = json.loads(done.stdout)
    assert done.exit_code == 0
    assert plan["ready"] is True
    assert plan["data"]["output_rows"] == plan["sample"]["rows"] == 5
    assert plan["memory"]["kv_bytes_per_token"] == 2 * 2 * 1 * 64 * 2
    statuses = [finding["status"] for finding in plan["findings"]]
    assert [status for status in statuses if status != "pass"] == ["warn", "warn"]
    (estimate,) = plan["estimates"]
    assert estimate["rough"] is True
    assert "125 TFLOP/s" in estimate["basis"]


def test_what_comes_from_the_data_is_neither_markup_nor_obeyed(planned):
    records = [question(0), question(1), question(2, id="[bold]\x1b[2J", question="")]
    done = planned("--set", "limits.max_error_share=0.5", records=records)
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout
    assert "1 faulty" in done.stdout


def test_without_a_terminal_the_text_is_plain(config_of):
    out = io.StringIO()
    print_findings(make_plan(config_of()).findings, console=Console(file=out, width=120))
    assert "\x1b" not in out.getvalue()
    assert "not estimated" in out.getvalue()
