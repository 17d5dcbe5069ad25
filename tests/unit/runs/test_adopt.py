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
from flexray.sink import (
    CodeVersion,
    DamageError,
    OutputFolder,
    load_run,
    verify,
    whole_shards,
)
from flexray.sink.plan.files import part_in
from flexray.sink.records import Manifest, OldRunRecord
from tests.ray.jobs import contents, make_tree, question, write
from tests.runs import planned, run_shards
from tests.unit.runs.old_runs import METHODS, adopt_all, config_of, make_old, rows_in

NIGHTS = ("0123456789abcdef", "fedcba9876543210")


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


def test_the_table_is_evaluated_as_the_old_runs_together(place, config):
    adopt_all(config, place / "answers")
    nights = evaluate([str(place / "answers" / night) for night in NIGHTS]).methods
    table = evaluate([config.output]).methods
    assert [method.method for method in table] == ["attention/shared_context/restart", "per_prompt"]
    for method in table:
        old = [night for night in nights if night.method == method.method]
        assert method.errors == 0 < sum(night.errors for night in old)
        assert method.scored == sum(night.scored for night in old) == 6
        for metric, estimate in method.metrics.items():
            total = sum(night.metrics[metric].mean * night.scored for night in old)
            assert estimate.mean == pytest.approx(total / method.scored), metric


def test_a_second_adoption_finds_nothing_and_writes_nothing(place, config):
    adopt_all(config, place / "answers")
    before = contents(place)
    done, _ = adopt_all(config, place / "answers", place / "answers" / NIGHTS[0])
    assert (done.adopted, done.skipped, done.errors_left) == (0, 12 + 8, 2)
    assert contents(place) == before


def test_another_model_is_refused(place, tiny_model, save_tiny_model, tmp_path):
    other = save_tiny_model(tmp_path / "other model", seed=1)
    with pytest.raises(OutputError, match=r"model\.digest: "):
        adopt_all(config_of(place / "table", other, place / "*.jsonl"), place / "answers")
    assert not (place / "table" / "_run.json").exists()


def test_settings_of_a_record_that_are_not_known_are_told(place, config):
    path = place / "answers" / NIGHTS[0] / "_run.json"
    tree = json.loads(path.read_text())
    tree["parts"]["prompt"]["tone"] = "kind"
    path.write_text(OldRunRecord.model_validate(tree).sealed().to_bytes().decode())
    with pytest.raises(OutputError, match=r"has settings that this flexray does not know(.|\n)*tone"):
        adopt_all(config, place / "answers")


def test_a_method_of_the_same_name_with_other_settings_is_refused(place, config):
    """As a plug-in's may be; nothing is loaded before it is refused."""
    path = place / "answers" / NIGHTS[0] / "_run.json"
    tree = json.loads(path.read_text())
    tree["config"]["methods"][1]["paraphrase_scale"] = 0.5  # per_prompt's name does not tell it
    path.write_text(OldRunRecord.model_validate(tree).sealed().to_bytes().decode())
    with pytest.raises(OutputError, match=r"methods\.per_prompt\.paraphrase_scale: 0\.5 -> 0\.0"):
        adopt_all(config, place / "answers")
    assert not (place / "answers" / "_run.json").exists()


def drawing(config, place, count):
    """The recipe, with few-shots that are drawn."""
    data = write(place / "train.jsonl", [question(i) for i in range(20, 25)])
    tree = config.model_dump(mode="json")
    drawn = {"few_shots": [], "few_shot_data": {"files": [str(data)], "count": count}}
    tree["data"]["files"] = [str(place / f"{name}.jsonl") for name in "ab"]
    return type(config).model_validate(tree | {"methods": METHODS, "prompt": tree["prompt"] | drawn})


def test_drawn_few_shots_are_those_of_the_old_runs(place, config):
    drawn = drawing(config, place, 1)
    assert adopt_all(drawn, place / "answers")[0].adopted == 12
    then = load_run(OutputFolder(str(place / "answers" / NIGHTS[0]))).parts["prompt"]["few_shots"]
    job = planned(drawn)
    assert [few_shot.model_dump() for few_shot in job.config.prompt.few_shots] == then
    assert sum(manifest.rows for manifest in job.committed.values()) == 12
    assert job.record.planned_rows == 14


def test_another_number_of_few_shots_is_refused(place, config):
    with pytest.raises(OutputError, match=r"given with 1 few-shots, and prompt\.few_shot_data\.count is 2"):
        adopt_all(drawing(config, place, 2), place / "answers")
    assert not (place / "answers" / "_run.json").exists()


def test_a_night_whose_record_is_lost_is_not_passed_over(place, config):
    (place / "answers" / NIGHTS[1] / "_run.json").unlink()
    with pytest.raises(DamageError, match=rf"{NIGHTS[1]}/_run\.json: is missing"):
        adopt_all(config, place / "answers")
    assert not (place / "answers" / "_run.json").exists()


def test_a_table_of_another_values_version_stays_one(place, config, tiny_model, monkeypatch):
    to = config.model_copy(update={"output": str(place / "table")})
    with monkeypatch.context() as patch:
        patch.setattr("flexray.runs.fingerprint.VALUES_VERSION", 99)
        run_shards(to, [0])
    folder = OutputFolder(to.output)
    before = load_run(folder)
    done, _ = adopt_all(to, place / "answers")
    assert (done.adopted, done.skipped) == (6, 6)
    run = load_run(folder)
    assert run.fingerprint == before.fingerprint
    files = [part.file.file for part in run.plan]
    assert len(files) == 2
    assert all(part_in(name, folder.read_bytes(name), run.fingerprint) for name in files)
    assert verify(folder).ok


def test_rows_that_two_versions_of_the_code_computed_are_counted_once(place, config, tiny_model):
    other = place / "other"
    run_shards(config_of(other, tiny_model, place / "a.jsonl"), [0, 1])
    path = min((other / "_manifests").iterdir())
    manifest = Manifest.parse(path.read_bytes(), str(path))
    codes = (*manifest.code, CodeVersion(flexray="0.3", commit="", source_sha256="", values_version=7))
    path.write_bytes(manifest.model_copy(update={"code": codes}).sealed().to_bytes())
    done, said = adopt_all(config.model_copy(update={"output": str(place / "new")}), other)
    assert sum(done.by_code.values()) == done.adopted == 8
    assert any(line.startswith("6 rows were computed by ") and " and flexray 0.3 " in line for line in said)


def test_questions_that_only_confidence_has_answered_are_told(place, tiny_model):
    data, methods = place / "a.jsonl", [{"kind": "confidence", "samples": 2}]
    run_shards(config_of(place / "rated", tiny_model, data, methods=methods), [0, 1])
    make_old(place / "rated")
    to = config_of(place / "table", tiny_model, data, methods=methods)
    done, said = adopt_all(to, place / "rated")
    assert (done.adopted, done.without_confidences) == (4, 4)
    assert any("4 questions have answers by the method confidence only" in line for line in said)
    job = planned(to)  # the data have no confidences, so nothing has changed
    assert set(job.record.shards()) == set(job.committed)
