"""The recipes and commands of docs/coming-from-the-script.md, run at tiny size without Ray."""

import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pandas
import pytest
import yaml
from datasets import Dataset
from typer.testing import CliRunner

from flexray.cli import app
from flexray.config import load_config
from flexray.data import scan
from flexray.runs.data_sets import write_confidences
from flexray.sink import OutputFolder, committed_shards, specs_of
from tests.conftest import PROJECT
from tests.runs import planned, run_shards
from tests.unit.data.conftest import write

PAGE = (PROJECT / "docs" / "coming-from-the-script.md").read_text()
TINY = ["model.device=cpu", "model.dtype=float32", "engine.backend=sdpa", "generation.max_new_tokens=3"]
RELATIONS = {"P36": "The capital of [X] is [Y].", "P17": "[X] lies in [Y]."}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_model):
    """A folder with the page's recipes, and with small data sets and models where they look for them."""
    monkeypatch.chdir(tmp_path)
    for block in blocks("yaml"):
        Path(re.match(r"# (\S+)\n", block)[1]).write_text(block)
    questions = [
        {"uuid": f"id{i}", "url": "u", "question": f"where is {i}?", "answers": [f"city {i}", "b"]}
        | {f"paraphrase{n}": f"where is {i}?" if n == 0 else f"{i} is where, {n}?" for n in range(6)}
        for i in range(4)
    ]
    Dataset.from_list(questions).save_to_disk("datasets/webqa/llama3.2_3b_it/paraphrases_dataset")
    facts = [
        {"uuid": f"f{i}", "rel_uri": relation, "sub_ent": f"S{i}", "obj_ents": [f"O{i}"]}
        | {"obj_aliases": [f"O{i}", "alias"], "is_manual": n < 5, "template": f"{n}: {template}"}
        for i in range(8)
        for relation, template in RELATIONS.items()
        if i % 2 == list(RELATIONS).index(relation)
        for n in range(15)
    ]
    write(Path("datasets/MyriadLAMA/data/train-00000-of-00001.parquet"), facts)
    pandas.DataFrame({"uuid": ["f0", "f1", "f0"]}).to_feather("old.feather")
    Path("meta-llama").mkdir()
    for name in ("Llama-3.2-1B", "Llama-3.2-3B-Instruct"):
        Path("meta-llama", name).symlink_to(tiny_model)
    return tmp_path


def commands_of(block, here):
    """The flexray commands that bash gives, with loops and variables filled in; other commands run."""
    stand_in = here / ".venv" / "bin"
    stand_in.mkdir(parents=True, exist_ok=True)
    (stand_in / "flexray").write_text('#!/bin/bash\nprintf "%q " "$@" >> given\necho >> given\n')
    (stand_in / "python").write_text(f'#!/bin/bash\nexec {shlex.quote(sys.executable)} "$@"\n')
    for file in stand_in.iterdir():
        file.chmod(0o755)
    Path("given").write_text("")
    subprocess.run(["bash", "-eu", "-c", block], check=True)
    return [shlex.split(line) for line in Path("given").read_text().splitlines()]


def answered(recipe, overrides):
    """Compute what is missing; the run's configuration."""
    config = load_config(recipe, [*overrides, *TINY])
    folder = OutputFolder(config.output)
    record = planned(config).record
    done = committed_shards(folder, record)
    run_shards(config, [i for i, shard_id in enumerate(specs_of(folder, record)) if shard_id not in done])
    return config


def sets(options):
    return [value for option, value in pairwise(options) if option == "--set"]


def carry_out(command):
    name, first, *rest = command
    if name not in ("run", "confidence"):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        return
    overrides = [value.replace("samples: 100", "samples: 2") for value in sets(rest)]
    config = answered(first, overrides)
    if name == "confidence":
        written = write_confidences(OutputFolder(config.output), rest[rest.index("--to") + 1])
        assert (written.records, written.errors) == (4, 0)


def test_the_page_has_its_recipes_and_commands():
    assert (len(blocks("yaml")), len(blocks("bash"))) == (2, 7)


def test_the_recipes_run_and_export_what_the_script_wrote(here):
    for block in blocks("bash")[:2]:
        for command in commands_of(block, here):
            carry_out(command)
    rows = pandas.read_feather("out/webqa.feather")
    assert rows["error"].tolist() == [""] * 4
    assert rows["uuid"].tolist() == [f"id{i}" for i in range(4)]
    first = rows.iloc[0]
    prompt = yaml.safe_load(Path("webqa.yaml").read_text())["prompt"]
    few_shots = "\n\n".join(f"Q: {shot['question']}\nA: {shot['answer']}" for shot in prompt["few_shots"])
    asked = ["where is 0?", *(f"0 is where, {n}?" for n in range(1, 5))]
    assert list(first["paraphrases"]) == asked
    assert list(first["prompts"]) == [f"{prompt['instruction']}\n\n{few_shots}\n\nQ: {q}\nA:" for q in asked]
    assert (list(first["answers"]), first["prediction"] in first["generation"]) == (["city 0", "b"], True)
    assert {"predict_lemma", "answer_lemmas", "paraphrase", "question"} <= set(rows.columns)
    carry_out(["export", "out/myriadlama", "--to", "lama.jsonl"])
    facts = pandas.read_json("lama.jsonl", lines=True)
    assert sorted(facts["source_id"]) == ["f0", "f1"]
    assert facts["answers"].tolist() == [[f"O{i[1:]}", "alias"] for i in facts["source_id"]]
    assert (facts["num_manual"].tolist(), [len(p) for p in facts["paraphrases"]]) == ([5, 5], [10, 10])


def test_the_commands_of_the_shell_scripts_ask_what_they_say(here):
    Path("datasets/myriadlama-ids.txt").write_text("f0\nf1\n")
    asked = {}
    for block in blocks("bash")[2:6]:
        for name, recipe, *rest in commands_of(block, here):
            if name == "run":
                config = load_config(recipe, sets(rest))
                rows = scan(config.data).to_pylist()
                assert [row["error"] for row in rows] == [""] * len(rows)
                asked[config.output] = rows[0]["paraphrases"], [method.name for method in config.methods]
    assert len(asked) == 10
    assert [len(asked[f"out/webqa-{n}"][0]) for n in (2, 3, 6)] == [2, 3, 6]
    assert asked["out/webqa-pair-0,2"] == (["where is 0?", "0 is where, 2?"], ["avg"])
    assert asked["out/webqa"][1] == ["attention/full_prompt/continuous", "origin", "per_prompt", "max", "avg"]
    assert [len(asked[f"out/{name}"][0]) for name in ("m5-a5-s5", "m5-a0-s3", "myriadlama-Llama-3.2-1B")] == [
        10,
        5,
        10,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(2, 7))
def test_what_the_shell_scripts_did_runs(here, number):
    Path("datasets/myriadlama-ids.txt").write_text("f0\nf1\n")
    commands = commands_of(blocks("bash")[number], here)
    assert commands
    for command in commands:
        carry_out(command)
    outputs = [path.parent.name for path in Path("out").glob("*/_run.json")]
    assert len(outputs) == len({tuple(c) for c in commands if c[0] in ("run", "confidence")}), outputs
