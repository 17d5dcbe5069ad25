"""An export in the columns of scripts: what the model was asked, what it said, and the lemmas of both."""

import pandas
import pytest
from typer.testing import CliRunner

import flexray
from flexray.cli.app import app
from flexray.errors import OutputError
from flexray.runs.export import export
from flexray.runs.script_columns import PROMPTS, SCHEMA
from flexray.sink import OutputFolder
from tests.unit.sink.builders import commit, planned, row, start, table

IDS = ("qa/test/a", "qa/test/b")
PROMPT = {
    "instruction": "Answer.",
    "few_shots": [{"question": "Who?", "answer": "Ada"}],
    "question_template": "\nQ: {question}",
    "answer_prefix": "\nA:",
}


def made(tmp_path, model, **said):
    """A run of two questions by attention and per_prompt."""
    folder = OutputFolder(str(tmp_path / "out"))
    folder.prepare()
    generation = {"max_new_tokens": 4, "stop_at_newline": False}
    config = {"model": {"path": str(model)}, "prompt": PROMPT, "generation": generation}
    run = start(folder, IDS, methods=("attention", "per_prompt"), config=config)
    (shard,) = planned(folder, run)
    rows = [row(i, shard.shard_id, method="attention", prediction="Two cities.\nmore") for i in IDS]
    rows += [
        row(i, shard.shard_id, method="per_prompt", paraphrase_predictions=["Berlin", "Rome"]) for i in IDS
    ]
    rows[1] |= {"source_id": "", "answers": None, "correct": None}
    commit(folder, run, shard, table=table(shard, rows=rows))
    return folder.url


def test_a_feather_file_has_prompts_generations_and_lemmas(tmp_path, tiny_model):
    output, path = made(tmp_path, tiny_model), tmp_path / "script.feather"
    done = CliRunner().invoke(app, ["export", output, "--to", str(path), "--columns", "script"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == "files=1 rows=6"
    assert "lemmas: " in done.output
    found = pandas.read_feather(path)
    assert list(found.columns) == SCHEMA.names
    first, second = found[found["method"] == "attention"].to_dict("records")
    head = "Answer.\nQ: Who?\nA: Ada"
    assert list(first["prompts"]) == [f"{head}\nQ: q1?\nA:", f"{head}\nQ: q2?\nA:"]
    assert (first["prompt"], first["paraphrase"]) == (first["prompts"][0], "q1?")
    assert (first["generation"], first["prediction"]) == ("Two cities.\nmore", "Two cities.")
    assert first["predict_lemma"][0] == "two"
    assert "more" not in first["predict_lemma"]
    assert [list(lemmas) for lemmas in first["answer_lemmas"]] == [["berlin"]]
    assert (first["uuid"], second["uuid"]) == (IDS[0], IDS[1])
    assert second["answers"] is second["answer_lemmas"] is None


def test_methods_that_ask_each_paraphrase_alone_have_a_row_for_each(tmp_path, tiny_model):
    output, path = made(tmp_path, tiny_model), tmp_path / "script.jsonl"
    done = export(output, str(path), columns="script", methods=["per_prompt"])
    assert done.rows == 4
    rows = pandas.read_json(path, lines=True)
    assert rows["prediction"].tolist() == ["Berlin", "Rome"] * 2
    assert rows["paraphrase"].tolist() == ["q1?", "q2?"] * 2
    assert [prompt.endswith(f"{q}\nA:") for prompt, q in zip(rows["prompt"], rows["paraphrase"], strict=True)]
    assert all(rows["prompts"].str.len() == 1)


def test_without_the_model_there_are_no_prompts_and_it_says_so(tmp_path):
    output, path = made(tmp_path, tmp_path / "gone"), tmp_path / "script.csv"
    done = export(output, str(path), columns="script")
    assert done.notes[0].startswith("without prompt and prompts, which need the run's tokenizer:")
    assert list(pandas.read_csv(path).columns) == [name for name in SCHEMA.names if name not in PROMPTS]


def test_a_wide_row_has_no_columns_of_a_script(tmp_path):
    output = made(tmp_path, tmp_path / "gone")
    with pytest.raises(OutputError, match="a wide row has no columns of a script"):
        export(output, str(tmp_path / "x.feather"), columns="script", wide=True)
    assert flexray.read(output).to_arrow().num_rows == 4
