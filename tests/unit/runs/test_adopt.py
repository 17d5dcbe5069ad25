"""Answers of runs that could not grow become rows of a table, and nothing is computed again."""

import json
import shutil

import pytest
import yaml
from typer.testing import CliRunner

from flexray.cli import app
from flexray.errors import OutputError
from flexray.evaluation import evaluate
from flexray.runs.adopt import adopt
from flexray.sink import DamageError, OutputFolder, load_run, read_committed, verify, whole_shards
from flexray.sink.records import OldRunRecord
from tests.ray.jobs import make_config, make_tree, question, write
from tests.runs import planned, run_shards
from tests.unit.runs.old_runs import make_old

METHODS = [{"kind": "attention"}, {"kind": "per_prompt"}]
NIGHTS = ("0123456789abcdef", "fedcba9876543210")


def config_of(output, model, *files, **sections):
    config = make_config(output, model, *files, **sections)
    tree = config.model_dump(mode="json") | {"methods": METHODS}
    tree["methods"] = METHODS
    return type(config).model_validate(tree)


@pytest.fixture(scope="module")
def old(tmp_path_factory, tiny_model):
    """Two nights of the old layout, a file each; the second has a faulty row. Do not change them."""
    place = tmp_path_factory.mktemp("old")
    a = write(place / "a.jsonl", [question(i) for i in range(4)])
    b = write(place / "b.jsonl", [question(4), question(5, question=""), question(6)])
    for night, file, shards in zip(NIGHTS, (a, b), ([0, 1], [0]), strict=True):
        output = place / "answers" / night
        run_shards(config_of(output, tiny_model, file), shards)
        make_old(output)
    return place


@pytest.fixture
def place(old, tmp_path):
    shutil.copytree(old, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def config(place, tiny_model):
    """The recipe of both files, whose output folder holds the nights."""
    return config_of(place / "answers", tiny_model, place / "*.jsonl")


def rows_in(output):
    tables = read_committed(OutputFolder(str(output)), everything=True)
    rows = {(row["method"], row["row_id"]): row for table in tables for row in table.to_pylist()}
    return {key: {name: row[name] for name in row if name != "shard_id"} for key, row in rows.items()}


def test_an_old_night_is_a_run_that_is_read_verified_and_evaluated(place):
    for night, rows in zip(NIGHTS, (8, 6), strict=True):
        folder = OutputFolder(str(place / "answers" / night))
        assert isinstance(load_run(folder), OldRunRecord)
        report = verify(folder)
        assert (report.ok, report.rows, report.planned_rows) == (True, rows, rows)
    assert evaluate([str(place / "answers" / NIGHTS[0])]).methods


def test_good_rows_are_adopted_as_they_are_and_the_rest_is_left_to_the_next_run(place, config):
    before = {**rows_in(place / "answers" / NIGHTS[0]), **rows_in(place / "answers" / NIGHTS[1])}
    said = []
    done = adopt(config, [str(place / "answers")], log=said.append)
    assert done.summary_line() == "adopted=12 skipped=0 changed=0 errors_left=2"
    assert "12 rows were computed by flexray 0.1 (values version 1); their manifests say so" in said
    found = rows_in(place / "answers")
    assert found == {key: row for key, row in before.items() if not row["error"]}
    report = verify(OutputFolder(str(place / "answers")))
    assert (report.ok, report.rows) == (True, 12)
    folder = OutputFolder(config.output)
    manifests = whole_shards(folder, load_run(folder))
    assert {code.flexray for m in manifests.values() for code in m.code} == {"0.1"}
    assert sum(m.engine_stats["prefill_tokens"] for m in manifests.values()) > 0
    job = planned(config)
    todo = set(job.record.shards()) - set(job.committed)
    assert [job.record.shards()[shard][0].methods for shard in todo] == [load_run(folder).selection.methods]
    assert job.record.planned_rows == 14  # the faulty question, by both methods
    run_shards(config, [len(job.record.shards()) - 1])
    report = verify(OutputFolder(str(place / "answers")))
    assert (report.ok, report.rows) == (True, 14)


def test_what_is_there_is_skipped_and_what_asks_something_else_is_counted(place, config, tiny_model):
    other = place / "again"
    changed = write(place / "c.jsonl", [question(0), question(1, answers=["other"]), question(9)])
    run_shards(config_of(other, tiny_model, changed), [0])
    to = config.model_copy(update={"output": str(place / "new")})
    first = adopt(to, [str(place / "answers" / NIGHTS[0])], log=lambda line: None)
    assert (first.adopted, first.skipped, first.changed) == (8, 0, 0)
    second = adopt(to, [str(other), str(place / "answers" / NIGHTS[0])], log=lambda line: None)
    assert (second.adopted, second.skipped, second.changed) == (2, 2 + 8, 2)
    assert verify(OutputFolder(str(place / "new"))).ok
    assert rows_in(place / "new")["per_prompt", "qa/test/q1"]["answers"] == ["Japan"]


def test_a_run_of_other_settings_is_refused_by_key_and_nothing_is_written(place, config):
    other = config.model_copy(
        update={"generation": config.generation.model_copy(update={"max_new_tokens": 5})}
    )
    with pytest.raises(OutputError, match=r"generation\.max_new_tokens: 4 -> 5"):
        adopt(other, [str(place / "answers")], log=lambda line: None)
    assert sorted(path.name for path in (place / "answers").iterdir()) == sorted(NIGHTS)


def test_damage_ends_it_before_anything_is_written(place, config):
    data = next((place / "answers" / NIGHTS[1] / "data").iterdir())
    data.write_bytes(bytes(data.stat().st_size))
    with pytest.raises(DamageError, match=data.name):
        adopt(config, [str(place / "answers")], log=lambda line: None)
    assert not (place / "answers" / "_run.json").exists()


@pytest.mark.parametrize("which", range(1, 9))
def test_a_kill_between_any_two_writes_leaves_a_command_that_can_be_given_again(
    place, config, monkeypatch, which
):
    writes = []
    write_bytes = OutputFolder.write_bytes

    def stop(self, name, data):
        writes.append(name)
        if len([name for name in writes if not name.startswith("_lock")]) == which:
            raise KeyboardInterrupt
        write_bytes(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "write_bytes", stop)
        with pytest.raises(KeyboardInterrupt):
            adopt(config, [str(place / "answers")], log=lambda line: None)
    adopt(config, [str(place / "answers")], log=lambda line: None)
    report = verify(OutputFolder(config.output))
    assert (report.ok, report.rows) == (True, 12)
    assert len(rows_in(place / "answers")) == 12


def test_the_command_says_what_it_did(place, tiny_model):
    tree = make_tree(place / "table", tiny_model, place / "*.jsonl") | {"methods": METHODS}
    recipe = place / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tree))
    done = CliRunner().invoke(app, ["adopt", str(place / "answers"), "--config", str(recipe)])
    assert done.exit_code == 0, done.output
    assert "adopted=12 skipped=0 changed=0 errors_left=2" in done.output
    none = CliRunner().invoke(app, ["adopt", str(place / "in"), "--config", str(recipe)])
    assert none.exit_code == 2
    assert "holds no run" in none.output
    assert json.loads((place / "table" / "_run.json").read_text())["schema_version"] == 5
