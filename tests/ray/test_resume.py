"""A second start of a run: it does what is missing, and refuses to mix in anything else."""

import json
import shutil

import pytest

from flexray.config import parse_config
from flexray.errors import DataError, OutputError
from flexray.runs.run import run
from flexray.sink import OutputFolder, read_committed
from tests.ray.jobs import (
    assert_whole,
    contents,
    flexray_here,
    manifests,
    question,
    rows_of,
    write,
    write_config,
)

ROWS = 7


def everything(output, **options):
    return [
        row for table in read_committed(OutputFolder(str(output)), **options) for row in table.to_pylist()
    ]


def values(row):
    """Without where the row stands."""
    return {name: value for name, value in row.items() if name not in ("shard_id", "source_file")}


def start(tree, **options):
    return run(parse_config(tree, source="test"), log=lambda _: None, **options)


def test_a_second_start_has_nothing_to_do_and_asks_for_no_ray(again, output, tmp_path, monkeypatch):
    start(again)  # the copy's data file is another one than that of the run, so this looks into it
    before = contents(output)
    monkeypatch.setattr("flexray.runs.run.connect_ray", lambda *_: pytest.fail("no Ray is needed"))
    code, said, errors = flexray_here("run", "--config", write_config(tmp_path, again))
    assert code == 0, errors
    assert "everything is committed: nothing to do" in said
    assert contents(output) == before


@pytest.mark.parametrize(
    ("section", "key", "value", "named"),
    [
        ("prompt", "instruction", "Reply.", 'prompt.instruction: "Answer." -> "Reply."'),
        ("prompt", "few_shots", [], "prompt.few_shots: "),
        ("generation", "max_new_tokens", 5, "generation.max_new_tokens: 4 -> 5"),
        ("data", "max_paraphrases", 1, "data.max_paraphrases: null -> 1"),
        ("data", "split", "train", 'data.split: "test" -> "train"'),
        ("model", "dtype", "bfloat16", "model.dtype: "),
    ],
)
def test_a_run_with_another_configuration_is_refused_by_its_name(again, output, section, key, value, named):
    before = contents(output)
    again[section][key] = value
    with pytest.raises(OutputError) as error:
        start(again)
    assert str(output) in str(error.value)
    assert named in str(error.value)
    assert contents(output) == before


def test_a_changed_row_is_refused_by_name_or_computed_again(again, output, tmp_path):
    changed = [question(i) for i in range(ROWS)]
    changed[3] = question(3, answers=["other"])
    write(tmp_path / "questions.jsonl", changed)
    named = r"questions\.jsonl, row 4 \(id qa/test/q3\), field 'answers': \['Norway'\] -> \['other'\]"
    with pytest.raises(DataError, match=named):
        start(again)
    result = start(again, replace_changed=True)
    assert (result.rows_before, result.rows_now) == (ROWS, 1)
    assert rows_of(output)["qa/test/q3"]["answers"] == ["other"]
    assert len(rows_of(output)) == ROWS


def test_another_model_of_the_same_shape_is_refused(again, save_tiny_model, tmp_path):
    again["model"]["path"] = str(save_tiny_model(tmp_path / "model", seed=1))
    with pytest.raises(OutputError, match=r"model\.digest: "):
        start(again)


def test_committed_rows_stay_in_the_shards_that_they_have(again):
    again["data"]["shard_rows"] = 2
    assert start(again).rows_now == 0


def test_more_rows_and_more_methods_are_all_that_is_computed(again, output, tmp_path):
    before = contents(output / "data")
    write(tmp_path / "questions.jsonl", [question(i) for i in range(ROWS + 2)])
    again["methods"] = ["attention", "per_prompt"]
    result = start(again)
    assert (result.rows_before, result.rows_now) == (ROWS, ROWS + 2 * 2)
    assert_whole(output, 2 * (ROWS + 2))
    assert {path: data for path, data in contents(output / "data").items() if path in before} == before
    grown = {(row["method"], row["row_id"]): row for row in everything(output)}
    whole = parse_config(again | {"output": str(tmp_path / "at once")}, source="test")
    run(whole, log=lambda _: None)
    at_once = {(row["method"], row["row_id"]): row for row in everything(tmp_path / "at once")}
    assert [values(row) for row in grown.values()] == [values(at_once[key]) for key in grown]
    assert grown.keys() == at_once.keys()
    again["methods"] = ["per_prompt"]
    again["data"]["limit"] = 3
    assert start(again).rows_now == 0
    assert {row["method"] for row in everything(output)} == {"per_prompt"}
    assert len(everything(output)) == 3
    assert len(everything(output, everything=True)) == 2 * (ROWS + 2)


def test_what_does_not_determine_the_rows_may_change(again, output, tiny_model, tmp_path):
    again["engine"] = {"backend": "eager", "max_num_seqs": 2}
    again["ray"] = {"max_actors": 2}
    again["model"]["path"] = str(shutil.copytree(tiny_model, tmp_path / "moved_model"))
    (tmp_path / "questions.jsonl").rename(tmp_path / "moved.jsonl")
    again["data"]["files"] = [str(tmp_path / "moved.jsonl")]
    assert start(again).rows_before == ROWS


def test_fresh_starts_over_and_leaves_other_peoples_files(again, output):
    (output / "notes.txt").write_text("mine")
    (output / "data" / "notes.txt").write_text("mine too")
    again["generation"]["max_new_tokens"] = 2
    result = start(again, fresh=True)
    assert (result.rows_before, result.rows_now) == (0, ROWS)
    assert_whole(output, ROWS)
    assert max(len(row["token_ids"]) for row in rows_of(output).values()) <= 2
    assert (output / "notes.txt").read_text() == "mine"
    assert (output / "data" / "notes.txt").read_text() == "mine too"
    assert len(list((output / "data").glob("*.parquet"))) == 3


@pytest.mark.parametrize(("section", "key"), [("model", "path"), ("data", "files")])
def test_fresh_discards_nothing_when_the_new_run_cannot_start(again, output, tmp_path, section, key):
    before = contents(output)
    again[section][key] = str(tmp_path / "no-such-thing")
    with pytest.raises(ValueError, match="no-such-thing"):
        start(again, fresh=True)
    assert contents(output) == before


def test_an_edited_manifest_is_refused(again, output):
    path = manifests(output)["qa-test-000000"]
    record = json.loads(path.read_text())
    record["rows"] = 2
    path.write_text(json.dumps(record))
    with pytest.raises(OutputError, match=r"qa-test-000000\.json: was changed after it was written"):
        start(again)
