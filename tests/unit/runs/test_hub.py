"""Runs of a model and a data set by their names on a hub (on loopback): commits, resume, plan, night."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flexray.cli import app
from flexray.errors import ConfigError, DataError, OutputError
from flexray.pipeline.hub import download
from flexray.runs.job import check_job
from flexray.runs.nightly import nightly
from flexray.sink import OutputFolder, load_run
from tests.hub import FakeHub
from tests.plans import make_plan
from tests.ray.jobs import assert_whole, make_config, make_tree, question, rows_of, write, write_config
from tests.runs import planned, run_shards

MODEL, DATA = "someone/tiny-llama", "someone/questions"
ROWS = [question(i) for i in range(7)]


@pytest.fixture
def named(hub: FakeHub, tiny_model: Path, tmp_path: Path):
    """Makes the configuration of a run by names; the hub has both."""
    hub.push(f"models/{MODEL}", tiny_model)
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "test.jsonl", ROWS)
    hub.push(f"datasets/{DATA}", tmp_path / "data")

    def make(model: str = MODEL, data: str | dict = DATA, **sections):
        config = make_config(tmp_path / "out", Path(model), data={"hub": data}, **sections)
        assert config.model.path == model
        return config

    return make


def test_the_record_has_the_commits_and_all_rows_are_answered(hub: FakeHub, named, tmp_path: Path) -> None:
    config = named()
    lines: list[str] = []
    download(config, lines.append)
    assert [line.partition(": down")[0] for line in lines] == [
        f"model.path: {MODEL}",
        f"data.hub: {DATA}@main",
    ]
    hub.asked.clear()
    run_shards(config, range(3))
    assert_whole(tmp_path / "out", len(ROWS))
    model, data = hub.branches[f"models/{MODEL}", "main"], hub.branches[f"datasets/{DATA}", "main"]
    record = load_run(OutputFolder(str(tmp_path / "out")))
    assert record.config["model"]["path"] == f"{MODEL}@{model}"
    assert record.config["data"]["hub"] == {
        "name": DATA,
        "config": "default",
        "split": None,
        "revision": data,
    }
    rows = rows_of(tmp_path / "out")
    assert {row["source_file"] for row in rows.values()} == {f"hf://datasets/{DATA}@{data}/default/test"}
    assert {row["error"] for row in rows.values()} == {""}
    assert hub.asked == []
    notes = check_job(config, OutputFolder(config.output)).notes
    assert notes[-2:] == (f"model.path: {MODEL}@{model}", f"data.hub: {DATA}@{data}")


def test_by_name_and_by_folder_it_is_the_same_run(named, tiny_model: Path, tmp_path: Path) -> None:
    download(named())
    run_shards(named(), [0])
    by_folder = make_config(tmp_path / "out", tiny_model, tmp_path / "data" / "test.jsonl")
    run_shards(by_folder, [1])
    assert len(run_shards(named(), [2])) == 3
    assert_whole(tmp_path / "out", len(ROWS))


def refusal(config) -> str:
    with pytest.raises((OutputError, DataError)) as e:
        run_shards(config, [1])
    planned = [p.what for p in make_plan(config).problems if p.status == "fail"]
    assert planned == [str(e.value)]
    return str(e.value)


def test_a_run_is_not_gone_on_with_at_another_commit_of_the_model(
    hub: FakeHub, named, save_tiny_model, tmp_path: Path
) -> None:
    download(named())
    old = hub.branches[f"models/{MODEL}", "main"]
    run_shards(named(), [0])
    new = hub.push(f"models/{MODEL}", save_tiny_model(tmp_path / "other", seed=1))
    run_shards(named(), [1])  # the cache still has the old commit only, and nothing else is asked
    download(named())
    message = refusal(named())
    assert f"model.path: {MODEL}@{old} -> {MODEL}@{new}" in message
    assert "model.digest: " in message
    assert len(run_shards(named(f"{MODEL}@{old}"), [2])) == 3
    assert_whole(tmp_path / "out", len(ROWS))


def test_another_commit_of_the_same_weights_is_refused_too(
    hub: FakeHub, named, tiny_model: Path, tmp_path: Path
) -> None:
    download(named())
    old = hub.branches[f"models/{MODEL}", "main"]
    run_shards(named(), [0])
    new = hub.push(f"models/{MODEL}", tiny_model, README__md=b"a better card")
    download(named())
    message = refusal(named())
    assert f"model.path: {MODEL}@{old} -> {MODEL}@{new}. To go on with the commit" in message
    assert "digest" not in message


def test_a_row_that_another_commit_of_the_data_has_changed_is_refused(
    hub: FakeHub, named, tmp_path: Path
) -> None:
    download(named())
    repo = f"datasets/{DATA}"
    old = hub.branches[repo, "main"]
    run_shards(named(), [0, 1, 2])
    write(tmp_path / "data" / "test.jsonl", [*ROWS[:-1], question(6, answers=["Lima"])])
    new = hub.push(repo, tmp_path / "data")
    download(named())
    message = refusal(named())
    place = f"hf://datasets/{DATA}@{new}/default/test, row {len(ROWS)} (id qa/test/q6)"
    assert f"{place}, field 'answers': ['India'] -> ['Lima']" in message
    run_shards(named(data={"name": DATA, "revision": old}), [])
    assert_whole(tmp_path / "out", len(ROWS))


def test_few_shots_are_drawn_from_a_data_set_of_the_hub(hub: FakeHub, named, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    write(tmp_path / "more" / "train.jsonl", [question(i) for i in range(20, 24)])
    hub.push("datasets/someone/more", tmp_path / "more")
    few = {"few_shots": [], "few_shot_data": {"hub": "someone/more", "count": 2}}
    config = named(prompt=few)
    with pytest.raises(ConfigError, match="hf download someone/tiny-llama"):
        check_job(config, OutputFolder(config.output))
    download(config)
    job = check_job(config, OutputFolder(config.output))
    assert len(planned(config).config.prompt.few_shots) == 2
    commit = hub.branches["datasets/someone/more", "main"]
    assert job.notes[-1] == f"prompt.few_shot_data.hub: someone/more@{commit}"


def test_plan_says_what_is_missing_and_downloads_it_if_told(hub: FakeHub, named, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "out", Path(MODEL), data={"hub": DATA})
    recipe = write_config(tmp_path, tree)

    def plan(*more: str):
        done = CliRunner().invoke(app, ["plan", "--config", str(recipe), "--json", *more])
        return done.exit_code, json.loads(done.stdout[done.stdout.index("{") :])

    code, told = plan()
    texts = [found["what"] for found in told["findings"] if found["status"] == "fail"]
    assert code == 2
    assert f"hf download {MODEL} --revision main" in texts[0]
    assert f"hf download {DATA} --repo-type dataset --revision main" in texts[1]
    assert hub.asked == []
    code, told = plan("--download")
    assert (code, told["data"]["rows"]) == (0, len(ROWS))
    assert {found["status"] for found in told["findings"]} == {"pass"}


def test_a_night_downloads_if_told_and_is_of_the_commits_that_it_names(
    hub: FakeHub, named, tiny_model: Path, tmp_path: Path
) -> None:
    # answered by folder, which is the same run, so that the night has nothing to compute
    run_shards(make_config(tmp_path / "out", tiny_model, tmp_path / "data" / "test.jsonl"), range(3))
    recipe = str(write_config(tmp_path, make_tree(tmp_path / "out", Path(MODEL), data={"hub": DATA})))
    failed: list[str] = []
    assert nightly([recipe], log=lambda line: None, complain=failed.append).exit_code == 2
    assert "hf download" in failed[0]
    lines: list[str] = []
    night = nightly([recipe], fetch=True, log=lines.append, complain=failed.append)
    assert (night.exit_code, night.outcomes["complete"]) == (0, 1), failed
    model, data = hub.branches[f"models/{MODEL}", "main"], hub.branches[f"datasets/{DATA}", "main"]
    assert f"  model.path: {MODEL}@{model}" in lines
    assert f"  data.hub: {DATA}@{data}" in lines
    assert_whole(tmp_path / "out", len(ROWS))
