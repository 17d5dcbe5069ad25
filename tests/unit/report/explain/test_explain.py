"""`explain` on rows of files: which row, by which method, and against what is committed."""

import json
import shutil

import numpy as np
import pytest

from flexray.config import parse_config
from flexray.errors import ConfigError, DataError
from flexray.report.explain.explain import compare, explain
from flexray.report.explain.selection import find_row
from tests.runs import run_shards


@pytest.fixture(scope="module")
def committed(make_tree, tmp_path_factory):
    """The configuration of a run of which the first shard is committed, as a tree; without Ray."""
    tree = make_tree(tmp_path_factory.mktemp("run"))
    run_shards(parse_config(tree, source="test"), [0])
    return tree


def explained(tree, row="1", **changes):
    return explain(parse_config(tree | changes, source="test"), row=row)


def test_a_row_is_found_by_its_number_and_by_its_id(config):
    assert find_row(config, "2") == find_row(config, "qa/test/b")
    found = explain(config, row="qa/test/b", method="attention/shared_context/restart")
    assert found.row["row_id"] == "qa/test/b"
    assert found.row["answers"] == ["Rome", "Roma"]
    assert found.row["correct"] is False
    assert found.segment_names == ("context", "P1", "P2", "answer_prefix", "answer")


@pytest.mark.parametrize("method", ["3", "4"])
def test_methods_that_ask_each_paraphrase_alone_have_a_sequence_for_each(config, method):
    found = explain(config, row="1", method=method, top=3)
    name = found.row["method"]
    assert name == config.methods[int(method) - 1].name
    assert len(found.answers) == (3 if name == "per_prompt" else 1)
    for answer in found.answers:
        assert answer.disagreements == []
        assert answer.generation.backend_used == "sdpa"
        assert all(len(step.top) == 3 for step in answer.steps)
        assert len(answer.sequences) == (3 if name == "max" else 1)
    assert found.row["prediction"] == found.answers[found.chosen].text
    assert len(found.row["paraphrase_predictions"]) == (3 if name == "per_prompt" else 0)


def test_the_json_has_the_attention_of_each_step_by_segment_and_layer(config):
    tree = json.loads(explain(config, row="1", method="2").to_json())
    assert tree["segment_names"] == ["C1", "P1", "C2", "P2", "C3", "P3", "answer_prefix", "answer"]
    (answer,) = tree["answers"]
    (sequence,) = answer["sequences"]
    assert np.allclose(np.sum(sequence["attention"], axis=-1), 1, atol=1e-4)
    by_layer = np.array(sequence["attention_by_layer"])
    assert by_layer.shape == (len(answer["steps"]), 2, 8)
    assert np.allclose(by_layer.mean(1), sequence["attention"], atol=1e-5)
    assert answer["generation"]["token_ids"] == [step["id"] for step in answer["steps"]]
    assert tree["segments"][0]["tokens"][0].keys() == {"id", "text", "position"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0", "--row 0: the data set has 4 rows, counted from 1."),
        ("5", "--row 5: the data set has 4 rows, counted from 1."),
        ("b", "--row b: no row of the data set has this id. Ids are made like qa/test/a"),
        ("4", "qa/test/d is an error row: "),
        ("qa/test/d", "'question'"),
    ],
)
def test_a_row_that_cannot_be_explained_says_why(config, row, message):
    with pytest.raises(DataError) as e:
        explain(config, row=row)
    assert message in str(e.value)


def test_a_limit_of_the_recipe_is_kept(tree):
    tree["data"]["limit"] = 2
    config = parse_config(tree, source="test")
    with pytest.raises(DataError, match="--row 3: the data set has 2 rows"):
        explain(config, row="3")


@pytest.mark.parametrize("method", ["5", "0", "avg", "attention"])
def test_a_method_that_the_recipe_has_not_is_named_beside_those_that_it_has(config, method):
    with pytest.raises(ConfigError) as e:
        explain(config, row="1", method=method)
    assert f"--method {method}: the recipe has no such method" in str(e.value)
    assert "2 attention/full_prompt/continuous, 3 per_prompt, 4 max" in str(e.value)


def test_where_nothing_is_committed_the_reason_is_told_and_nothing_is_written(config, tmp_path):
    found = explain(config, row="1")
    assert found.same_tokens is None
    assert found.committed.startswith(f"nothing to compare with: {tmp_path}/out has no answer")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["2", "3"])
def test_the_committed_row_is_compared_token_by_token(committed, method):
    found = explain(parse_config(committed, source="test"), row="1", method=method)
    assert found.same_tokens is True
    said = f"{found.row['prediction']!r}, by sdpa, in shard qa-test-000000: the same"
    assert found.committed == said


def test_other_tokens_than_committed_are_told(committed, save_tiny_model, tmp_path):
    other = save_tiny_model(tmp_path / "other", seed=1)
    found = explained(committed, model={"path": str(other)}, engine={"backend": "eager"})
    assert found.same_tokens is False
    assert found.committed.endswith(", by sdpa, in shard qa-test-000000: differs")


@pytest.mark.parametrize(
    ("row_id", "method"), [("qa/test/a", "avg"), ("qa/dev/a", "max"), ("qa/test/c", "max")]
)
def test_what_the_committed_run_has_not_is_told(committed, row_id, method):
    row = {"row_id": row_id, "method": method}
    said, same = compare(parse_config(committed, source="test"), row)
    assert said.startswith(f"nothing to compare with: {committed['output']} has no answer to this row")
    assert same is None


def test_a_damaged_folder_is_told_and_the_row_explained_all_the_same(committed, tmp_path):
    shutil.copytree(committed["output"], tmp_path / "copy")
    (file,) = (tmp_path / "copy" / "data").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    found = explained(committed, output=str(tmp_path / "copy"))
    assert str(file) in found.committed
    assert found.answers[0].steps
