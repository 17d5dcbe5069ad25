"""The log is one event a line, whatever is in it, and tells no secret."""

import json
import logging
import logging.handlers

import pytest
from typer.testing import CliRunner

from flexray.cli import app
from flexray.console.log import VARIABLE, Log, RunLabel, start_logging
from flexray.errors import ConfigError

HOSTILE = "\x1b[2J\u202e\u2028\nlevel=INFO"
SECRET = "s3://key:secret@bucket/out?sig=abc"


@pytest.fixture(autouse=True)
def _quiet_again():
    yield
    start_logging("off")


@pytest.fixture
def logged(capsys):
    """What stands on standard error."""
    return lambda: capsys.readouterr().err


def test_an_event_is_a_line_of_json_with_context_and_facts(logged):
    start_logging("json")
    Log(run="4f2c-20260131T010000Z", actor="a1").info("shard.answered", shard_id="qa-0", rows=3)
    line = logged()
    assert line.endswith("\n")
    event = json.loads(line)
    assert event["time"].endswith("+00:00")
    assert isinstance(event["pid"], int)
    assert {key: event[key] for key in ("level", "event", "run", "actor", "shard_id", "rows")} == {
        "level": "INFO",
        "event": "shard.answered",
        "run": "4f2c-20260131T010000Z",
        "actor": "a1",
        "shard_id": "qa-0",
        "rows": 3,
    }


@pytest.mark.parametrize("mode", ["json", "text"])
def test_no_text_ends_the_line_or_controls_a_terminal(logged, mode):
    start_logging(mode)
    Log().warning("x", text=HOSTILE, many=[HOSTILE])
    line = logged()
    assert line.count("\n") == 1
    assert line.rstrip("\n").isprintable()
    if mode == "json":
        assert json.loads(line)["text"] == HOSTILE


@pytest.mark.parametrize("mode", ["json", "text"])
def test_no_credential_is_logged(logged, mode):
    start_logging(mode)
    try:
        raise OSError(f"cannot write {SECRET}")
    except OSError as e:
        Log(output=SECRET).error("run.failed", e, files=[SECRET])
    line = logged()
    assert "bucket/out" in line
    assert "secret" not in line
    assert "abc" not in line


def test_an_error_has_its_traceback_in_the_same_line(logged):
    start_logging("json")
    try:
        raise ValueError("a\nb")
    except ValueError as e:
        Log().error("run.failed", e)
    event = json.loads(logged())
    assert event["error"] == "ValueError: a\nb"
    assert event["traceback"].startswith("Traceback")


def test_by_default_only_warnings_are_written_and_off_writes_nothing(logged):
    start_logging("")
    Log().info("fine")
    Log().warning("odd", shard_id="qa-0")
    line = logged()
    assert 'WARNING odd shard_id="qa-0" pid=' in line
    assert "fine" not in line
    start_logging("off")
    Log().warning("odd")
    assert logged() == ""


def test_who_starts_no_log_gets_no_line_but_may_listen(logged):
    mine = logging.handlers.BufferingHandler(10)
    logging.getLogger("flexray").addHandler(mine)
    Log().warning("odd")
    logging.getLogger("flexray").removeHandler(mine)
    assert [record.getMessage() for record in mine.buffer] == ["odd"]
    assert logged() == ""


def test_an_unknown_value_is_named_before_anything_is_done(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, "yaml")
    with pytest.raises(ConfigError, match=r"'yaml'\. Set it to json, text or off"):
        RunLabel.of_start("0" * 64, "qa")
    done = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert done.exit_code == 2
    assert (
        done.stderr
        == f"error: {VARIABLE}: unknown value 'yaml'. Set it to json, text or off, or not at all.\n"
    )


def test_a_label_says_which_start_of_which_run(monkeypatch):
    monkeypatch.setenv(VARIABLE, "json")
    label = RunLabel.of_start("0123456789abcdef" * 4, "qa")
    assert (label.fingerprint, label.dataset, label.log) == ("0123456789ab", "qa", "json")
    assert label.run_id.startswith("0123456789ab-2")
