"""The machine and what a recipe names are examined; one that cannot be read leaves the machine."""

import json

import pytest
from typer.testing import CliRunner

from flexray.cli import app
from flexray.console.checks import Check, Finding
from flexray.preflight import doctor
from flexray.preflight.doctor import examine
from tests.ray.jobs import make_tree, question, write, write_config


@pytest.fixture
def only(monkeypatch):
    """Leaves only this check of the machine."""

    def only(look):
        monkeypatch.setattr(doctor, "MACHINE_CHECKS", (Check("look", look),))
        monkeypatch.setattr(doctor, "RECIPE_CHECKS", ())
        monkeypatch.setattr(doctor, "PROCESS_CHECKS", ())

    return only


def test_a_configuration_that_cannot_be_read_fails_and_the_machine_is_checked_without_it(tmp_path, only):
    seen = []

    def look(config):
        seen.append(config)
        yield Finding("pass", "fine")

    only(look)
    results = list(examine([str(tmp_path / "none.yaml")]))
    assert [result.status for result in results] == ["fail", "pass"]
    assert "none.yaml: no such configuration file" in results[0].what
    assert seen == [None]


def test_overrides_reach_the_checks(tmp_path, only):
    config = write_config(tmp_path, make_tree(tmp_path / "out", tmp_path, tmp_path))

    def name(config):
        yield Finding("pass", config.data.name)

    only(name)
    results = list(examine([str(config)], ["data.name=other"]))
    assert [result.what for result in results] == [str(config), "other"]


def test_a_recipe_by_url_is_told_without_its_secrets(tmp_path, only, monkeypatch):
    only(lambda config: ())
    monkeypatch.setattr(doctor, "load_config", lambda paths, overrides: None)
    (found,) = examine(["https://ada:s3cret@example.com/recipe.yaml?X-Amz-Signature=abc"])
    assert found.status == "pass"
    assert "s3cret" not in found.what
    assert "abc" not in found.what


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("status", "code"), [("pass", 0), ("warn", 0), ("fail", 1)])
def test_the_command_ends_with_1_if_a_check_fails(only, status, code, as_json):
    def check(config):
        yield Finding(status, "found", "do")

    only(check)
    done = CliRunner().invoke(app, ["doctor", *["--json"] * as_json])
    assert done.exit_code == code
    if as_json:
        expected = {"check": "look", "status": status, "what": "found", "advice": "do"}
        assert json.loads(done.stdout) == [expected]
    else:
        assert done.stdout.startswith(f"{status}  look         found")


@pytest.mark.slow
def test_a_machine_on_which_the_demo_runs_is_well(tmp_path, tiny_model):
    data = write(tmp_path / "qa.jsonl", [question(i) for i in range(8)])
    tree = make_tree(tmp_path / "out", tiny_model, data, engine={"backend": "flex"})
    config = write_config(tmp_path, tree)
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(app, ["doctor", "--json", "--config", str(config)])
    results = json.loads(done.stdout)
    assert [result for result in results if result["status"] == "fail"] == []
    checks = (*doctor.MACHINE_CHECKS, *doctor.RECIPE_CHECKS, *doctor.PROCESS_CHECKS)
    silent = {"versions", "methods", "evaluation", "prompt"}  # where all is well
    assert {result["check"] for result in results} == {"config", *(check.name for check in checks)} - silent
    assert done.exit_code == 0
    assert sorted(tmp_path.rglob("*")) == before
