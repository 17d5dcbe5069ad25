"""A recipe for data and a model: what is guessed, why, and that it runs."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from flexray.cli import app
from flexray.config import load_config
from flexray.data import scan
from flexray.errors import DataError
from flexray.preflight.init import draft_recipe
from flexray.preflight.init.guess import guess_fields

PLACES = ["Rome", "Oslo", "Lima"]


def write(path: Path, records: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(records))
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def fields_of(*records):
    return {key: guess.value for key, guess in guess_fields(records).items()}


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        (
            [{"Question": "Where?", "rephrasings": ["In which place?"], "gold": "here", "uid": 1}],
            {"id": "uid", "question": "Question", "paraphrases": "rephrasings", "answers": "gold"},
        ),
        (  # an id that comes twice is none; a list may be JSON in a text
            [{"id": 1, "query": "a?", "possible_answers": '["b"]', "prop": "x"}] * 2,
            {
                "id": None,
                "question": "query",
                "paraphrases": None,
                "answers": "possible_answers",
                "relation": "prop",
            },
        ),
        (
            [
                {
                    "asked": "Who is it?",
                    "p": "a long text",
                    "paraphrase0": "a",
                    "paraphrase1": "b",
                }
            ],
            {"id": None, "question": "asked", "paraphrases": "paraphrase0..1", "answers": None},
        ),
        (
            [
                {
                    "question": "q",
                    "auto_paraphrases": ["a"],
                    "manual_paraphrases": ["b"],
                    "answers": {"text": ["c"]},
                }
            ],
            {
                "id": None,
                "question": "question",
                "paraphrases": ["manual_paraphrases", "auto_paraphrases"],
                "answers": "answers.text",
                "num_manual": "manual_paraphrases",
            },
        ),
        ([{"n": 1, "values": [1, 2]}], {}),
    ],
)
def test_fields_are_guessed_by_their_names_and_values(records, expected):
    assert fields_of(*records) == expected


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_the_recipe_reads_the_data_that_it_was_made_for(tmp_path, tiny_model, suffix):
    records = [
        {"uid": i, "q": f"Where is {n}?", "variants": [f"What holds {n}?"], "gold": [n]}
        for i, n in enumerate(PLACES)
    ]
    data = write(tmp_path / f"my places{suffix}", records)
    draft = draft_recipe(str(data), str(tiny_model))
    assert (draft.name, draft.problems) == ("my-places", ())
    recipe = tmp_path / "r.yaml"
    recipe.write_text(draft.text)
    config = load_config(str(recipe))
    found = scan(config.data).to_pylist()
    assert [row["paraphrases"] for row in found] == [[f"What holds {n}?"] for n in PLACES]
    assert [row["answers"] for row in found] == [[n] for n in PLACES]
    assert config.prompt.chat
    assert draft.text.count("# guessed: ") == len(draft.guesses)


def test_data_sets_as_they_are_published_are_recognised(tmp_path, tiny_model):
    data = write(tmp_path / "w.json", [{"qId": "1", "qText": "Where?", "answers": ["here"]}])
    assert draft_recipe(str(data), str(tiny_model)).guesses["data.kind"].value == "webqa"
    sentence = {"uuid": "1", "pred": "/p", "evidences": "[]", "obj_label": "1941", "sub_label": "Ann"}
    pattern = {"relation": "P1.jsonl", "template": "[X] is in [Y].", "subject": "Rome", "object": "Italy"}
    for kind, row in {
        "lama_hub": sentence | {"masked_sentence": "Ann, born [MASK].", "template": "[X] (born [Y])."},
        "pararel": pattern,
    }.items():
        draft = draft_recipe(str(write(tmp_path / f"{kind}.parquet", [row])), str(tiny_model))
        assert (draft.guesses["data.kind"].value, draft.problems) == (kind, ())
    asked = [{"id": f"{i}", "question": f"Where is {i}?", "answers": [{"text": "Rome"}]} for i in range(2)]
    squad = {"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": "c", "qas": asked}]}]}
    (tmp_path / "squad.json").write_text(json.dumps(squad))
    draft = draft_recipe(str(tmp_path / "squad.json"), str(tiny_model))
    assert (draft.guesses["data.kind"].value, draft.problems) == ("squad", ())
    facts = [{"sub_label": "Rome", "obj_label": "Italy", "uuid": "1"}]
    write(tmp_path / "p/facts/P1.jsonl", facts)
    write(tmp_path / "p/patterns/P1.jsonl", [{"pattern": "[X] is in [Y]."}])
    draft = draft_recipe(str(tmp_path / "p"), str(tiny_model))
    assert draft.guesses["data.kind"].value == "pararel"
    assert yaml.safe_load(draft.text)["prompt"]["answer_prefix"] == "\nCompletion:"


@pytest.mark.parametrize("name", ["2020-01-01", "2020", "no", "1e3"])
def test_a_file_whose_name_yaml_reads_as_no_text_has_a_recipe(tmp_path, tiny_model, name):
    draft = draft_recipe(str(write(tmp_path / f"{name}.jsonl", [{"question": "Why?"}])), str(tiny_model))
    tree = yaml.safe_load(draft.text)
    assert (tree["data"]["name"], tree["output"]) == (name, f"out/{name}")


def test_the_length_of_an_answer_follows_from_the_accepted_ones(tmp_path, tiny_model):
    data = write(tmp_path / "a.jsonl", [{"question": "Why?", "answer": " ".join("abcdefghijkl")}])
    assert draft_recipe(str(data), str(tiny_model)).guesses["generation.max_new_tokens"].value == 40


def test_data_without_questions_say_which_fields_there_are(tmp_path, tiny_model):
    data = write(tmp_path / "a.jsonl", [{"n": 1, "values": [2]}])
    with pytest.raises(DataError, match=r"a\.jsonl: no field has texts that could be questions; it has 'n'"):
        draft_recipe(str(data), str(tiny_model))


def test_the_command_writes_the_recipe_once_and_says_what_was_guessed(tmp_path, tiny_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", [{"question": "Where?", "answer": "here"}, {"question": "", "answer": "x"}])
    arguments = ["init", "a.jsonl", "--model", str(tiny_model)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert 'data.fields.answers: "answer"  (by its name)' in done.stdout
    assert "1 of the first rows have faults; the first: " in done.stdout
    assert "flexray run a.yaml --set data.limit=10" in done.stdout
    assert load_config("a.yaml").data.files == ("a.jsonl",)
    again = CliRunner().invoke(app, arguments)
    assert (again.exit_code, "a.yaml: is there already" in again.stderr) == (2, True)
    assert CliRunner().invoke(app, [*arguments, "--force"]).exit_code == 0
