"""`flexray show-mask`: each method of a recipe can be drawn, for any row."""

import json
import re

import pytest
import yaml
from typer.testing import CliRunner

from flexray.cli import app

RECORDS = [
    {"id": "a", "question": "Who?", "paraphrases": ["Which person?", "Who is it?"], "answers": ["Ada"]},
    {"id": "b", "question": "Where?", "paraphrases": ["At which place?"], "answers": ["Rome"]},
]
METHODS = [
    "per_prompt",
    {"layout": "full_prompt", "positions": "continuous"},
    {"layout": "myriadlama", "cross_attention": True},
    "avg",
]


def drawn(output):
    """The names of the segments that begin the lines of the picture."""
    return {re.match(r" *(answer \d+|\S*) ", line)[1] for line in output.splitlines() if "█" in line}


@pytest.fixture
def show(tmp_path, tiny_model):
    """Runs the command; returns exit code and output."""
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    config = tmp_path / "config.yaml"
    tree = {
        "output": str(tmp_path / "out"),
        "data": {"name": "qa", "files": [str(data)]},
        "model": {"path": str(tiny_model)},
        "methods": METHODS,
    }
    config.write_text(yaml.safe_dump(tree))

    def run(*arguments):
        png = tmp_path / "mask.png"
        done = CliRunner().invoke(app, ["show-mask", "-c", str(config), "--png", str(png), *arguments])
        return done.exit_code, done.output

    return run


def test_without_a_method_the_first_that_is_attention_is_drawn(show, tmp_path):
    code, output = show("--row", "qa/test/b")
    assert code == 0, output
    assert output.startswith("qa/test/b: Where?")
    assert "C1" in drawn(output)
    assert (tmp_path / "mask.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("method", "segments"),
    [
        ("1", ["P1", "P2", "answer 1", "answer 2"]),
        ("attention/myriadlama/restart/cross", ["P2"]),
        ("avg", ["answer 2"]),
    ],
)
def test_each_method_is_drawn_by_its_name_or_number(show, method, segments):
    code, output = show("--method", method)
    assert code == 0, output
    for segment in segments:
        assert segment in drawn(output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "max"], "error: --method max: the recipe has no such method. It has: 1 per_prompt, 2"),
        (["--row", "7"], "error: --row 7: the data set has 2 rows, counted from 1."),
        (["--png", "/proc/none/mask.png"], "error: /proc/none/mask.png: cannot be written: "),
    ],
)
def test_what_cannot_be_drawn_is_one_line_and_exit_code_2(show, arguments, message):
    code, output = show(*arguments)
    assert code == 2
    assert message in output
    assert "Traceback" not in output


FEW_SHOTS = '[{question: "By?", answer: me, paraphrases: ["It is by?"]}, {question: "At?", answer: "it"}]'


@pytest.mark.parametrize(
    ("method", "copy"), [("3", ""), ("2", "C1."), ("attention/full_prompt/restart", "C1.")]
)
def test_few_shots_paraphrases_are_segments_of_the_context(show, method, copy):
    full = "methods=[{layout: full_prompt}]" if "/" in method else f"methods={json.dumps(METHODS)}"
    settings = ("--set", f"prompt.few_shots={FEW_SHOTS}", "--set", full)
    code, output = show("--method", method, *settings)
    assert code == 0, output
    for part in ("F1P1", "F1P2", "F1A"):
        assert f"{copy}{part}" in drawn(output)
    assert f"{copy}F2P1" not in drawn(output)  # it has one wording: nothing to isolate
