"""A check that fails, in whatever way, leaves the others alone."""

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from flexray.cli import app
from flexray.errors import ModelError
from flexray.preflight import doctor
from flexray.preflight.check_results import CheckResult
from flexray.preflight.doctor import print_results, run_checks
from tests.ray.jobs import make_tree, question, write, write_config


def good(config):
    yield CheckResult("pass", "fine")


def raising(error):
    def check(config):
        yield CheckResult("pass", "began")
        raise error

    return check


CHECKS = {
    "user": raising(ModelError("model: gone. Copy it.")),
    "system": raising(PermissionError(13, "Permission denied", "/data")),
    "bug": raising(KeyError("x")),
    "last": good,
}


def test_each_failure_is_a_result_and_the_results_before_it_stay():
    found = [(result.check, result.status, result.what) for result in run_checks(CHECKS)]
    assert [check for check, _, _ in found] == ["user", "user", "system", "system", "bug", "bug", "last"]
    assert [status for _, status, _ in found] == ["pass", "fail"] * 3 + ["pass"]
    assert found[1][2] == "model: gone. Copy it."
    assert "Permission denied: '/data'" in found[3][2]
    assert found[5][2] == "the check broke off: KeyError: 'x'"


def test_a_configuration_that_cannot_be_read_fails_and_the_machine_is_checked_without_it(tmp_path):
    seen = []

    def look(config):
        seen.append(config)
        return good(config)

    results = list(run_checks({"look": look}, [str(tmp_path / "none.yaml")]))
    assert [result.status for result in results] == ["fail", "pass"]
    assert "none.yaml: no such configuration file" in results[0].what
    assert seen == [None]


def test_overrides_reach_the_checks(tmp_path):
    config = write_config(tmp_path, make_tree(tmp_path / "out", tmp_path, tmp_path))

    def name(config):
        yield CheckResult("pass", config.data.name)

    results = list(run_checks({"name": name}, [str(config)], ["data.name=other"]))
    assert [result.what for result in results] == [str(config), "other"]


def test_results_are_shown_as_they_are_with_the_advice_below():
    def bad(config):
        yield CheckResult("warn", "[bold]x[/bold] \x1b[2J", "Do [this].")

    out = io.StringIO()
    assert print_results(run_checks({"bad": bad, "good": good}), console=Console(file=out, width=80))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines == [
        r"warn  bad        [bold]x[/bold] \x1b[2J",
        "                 Do [this].",
        "pass  good       fine",
        "1 pass, 1 warn, 0 fail",
    ]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("status", "code"), [("pass", 0), ("warn", 0), ("fail", 1)])
def test_the_command_ends_with_1_if_a_check_fails(monkeypatch, status, code, as_json):
    def check(config):
        yield CheckResult(status, "found", "do")

    monkeypatch.setattr(doctor, "CHECKS", {"check": check})
    done = CliRunner().invoke(app, ["doctor", *["--json"] * as_json])
    assert done.exit_code == code
    if as_json:
        expected = {"check": "check", "status": status, "what": "found", "advice": "do"}
        assert json.loads(done.stdout) == [expected]
    else:
        assert done.stdout.startswith(f"{status}  check      found")


@pytest.mark.slow
def test_a_machine_on_which_the_demo_runs_is_well(tmp_path, tiny_model):
    data = write(tmp_path / "qa.jsonl", [question(i) for i in range(8)])
    tree = make_tree(tmp_path / "out", tiny_model, data, engine={"backend": "flex"})
    config = write_config(tmp_path, tree)
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(app, ["doctor", "--json", "--config", str(config)])
    results = json.loads(done.stdout)
    assert [result for result in results if result["status"] == "fail"] == []
    assert {result["check"] for result in results} == {"config", *doctor.CHECKS}
    assert done.exit_code == 0
    assert sorted(tmp_path.rglob("*")) == before
