"""Rows that are computed again come out as they are stored, or it is said which do not and why."""

import dataclasses
import json
import shutil

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from flexray.cli import app
from flexray.config import parse_config
from flexray.pipeline.answer import Answerer
from flexray.pipeline.prepare import prepare_shard
from flexray.runs.commit import Commit
from flexray.runs.recompute import recompute
from flexray.sink import OutputFolder, specs_of
from tests.ray.jobs import make_tree, question, write
from tests.runs import planned

FAULTY = question(4, paraphrases="no list")


@pytest.fixture(scope="module", params=["flex", "sdpa"])
def run(request, tmp_path_factory, tiny_model):
    """A finished run in three shards, whose third question is stored with another answer than the model's."""
    place = tmp_path_factory.mktemp(request.param)
    data = write(
        place / "qa.jsonl", [question(0), question(1), question(2), question(3), FAULTY, question(5)]
    )
    methods = [{"kind": "attention"}, {"kind": "avg"}]
    sizes = {"max_num_seqs": 8, "max_num_batched_tokens": 256}  # those that other tests compile for, too
    engine = {"backend": request.param, "strict": True, **sizes}
    tree = make_tree(place / "out", tiny_model, data, data={"shard_rows": 2}, engine=engine)
    config = parse_config(tree | {"methods": methods}, source="test")
    folder = OutputFolder(config.output)
    job = planned(config)
    answerer, commit = Answerer(job.config), Commit(folder.url, job.record.fingerprint)
    for number, spec in enumerate(specs_of(folder, job.record).values()):
        shard = answerer.answer(prepare_shard(spec, job.config))
        if number == 1:
            answers = shard.answers.to_pylist()
            answers[0][0]["token_ids"] = [65, 66]
            shard = dataclasses.replace(shard, answers=pa.array(answers, shard.answers.type))
            changed = shard.questions["row_id"][0].as_py()
        commit(shard)
    return request.param, folder, changed


def test_all_rows_are_equal_but_the_one_that_was_changed(run):
    backend, folder, changed = run
    done = recompute(folder.url, 100, log=lambda line: None)
    assert done.equal == 5 * 2 - 1  # without the error row
    (found,) = done.differences
    assert (found.row_id, found.column, found.stored) == (changed, "token_ids", "[65, 66]")
    assert found.method.startswith("attention/")
    if backend == "flex":
        assert not done.ok
        assert not found.why
        assert done.summary_line() == "recomputed=10 equal=9 differ=1 not_comparable=0 error_rows=2"
    else:
        assert done.ok
        assert "attention by sdpa" in found.why
        assert done.summary_line() == "recomputed=10 equal=9 differ=0 not_comparable=10 error_rows=2"


def test_a_seed_chooses_rows_and_chooses_them_again(run):
    _, folder, _ = run
    said = [[], [], []]
    for lines, seed in zip(said, (0, 0, 1), strict=True):
        recompute(folder.url, 3, seed=seed, log=lines.append)
    assert said[0] == said[1] != said[2]


def test_the_command_tells_of_each_difference_by_its_exit_code_and_as_json(run):
    backend, folder, changed = run
    done = CliRunner().invoke(app, ["verify", folder.url, "--recompute", "100"])
    assert done.exit_code == (1 if backend == "flex" else 0), done.output
    assert f"row {changed!r}: token_ids is stored as [65, 66], and computed as [" in done.output
    assert "missing=0 doubled=0 damaged=0 unaccounted=0" in done.output
    done = CliRunner().invoke(app, ["verify", folder.url, "--recompute", "100", "--json"])
    tree = json.loads(done.stdout)
    assert tree["recomputed"]["equal"] == 9
    assert tree["recomputed"]["ok"] == (backend != "flex")


def test_a_damaged_folder_is_reported_and_nothing_is_computed(run, tmp_path):
    _, folder, _ = run
    shutil.copytree(folder.url, tmp_path / "out")
    data = min((tmp_path / "out" / "data").iterdir())
    data.unlink()
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "out"), "--recompute", "5"])
    assert done.exit_code == 1
    assert "nothing is computed again" in done.output
    assert "recomputed=" not in done.output
