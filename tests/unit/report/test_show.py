"""What a run said, on the console: accuracy by method, answers, errors by kind, and what looks odd."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from flexray.cli import app
from flexray.models.hub import has_chat_template
from flexray.report.notes import RunNotes, look_at
from flexray.report.run_folder import RunFolder
from flexray.report.show import print_answers
from flexray.sink import OutputFolder
from tests.unit.sink.builders import ERROR, Shard, commit, row, shard_id, start, table
from tests.unit.sink.conftest import folder

__all__ = ["folder"]

METHODS = ("attention", "origin")
CONFIG = {
    "model": {"path": "none"},
    "prompt": {"chat": False},
    "generation": {"max_new_tokens": 16, "stop_at_newline": True},
}


def made(folder: OutputFolder, change: Any = None, *, shards: int = 1, methods: Any = METHODS) -> RunFolder:
    """A finished run of 40 questions a shard; `change` gives the changed columns of a row."""
    ids = [f"qa/test/{i}" for i in range(40 * shards)]
    run = start(folder, ids, methods=methods, config=CONFIG, shard_rows=40)
    for n in range(shards):
        shard = Shard(shard_id(n), tuple(ids[40 * n : 40 * n + 40]), methods)
        rows = [
            row(row_id, shard.shard_id, method=method, **(change(int(row_id[8:]), method) if change else {}))
            for method in methods
            for row_id in shard.row_ids
        ]
        commit(folder, run, shard, table=table(shard, rows=rows))
    return RunFolder.open(folder.url)


def shown(notes: RunNotes, output: str = "out") -> str:
    out = io.StringIO()
    print_answers(notes, output=output, console=Console(file=out, width=150))
    return out.getvalue()


def half_wrong(i: int, method: str) -> dict[str, Any]:
    return {"prediction": "Rome", "correct": False} if i % 2 and method == "origin" else {}


def test_each_method_has_its_accuracy_with_its_interval(folder):
    text = shown(look_at(made(folder, half_wrong)))
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert lines["attention"][1:6] == ["40", "0", "40", "40", "100.0%"]
    assert lines["origin"][1:] == ["40", "0", "40", "20", "50.0%", "35.2%", "to", "64.8%"]


def test_answers_are_shown_with_gold_and_whether_they_are_right(folder):
    run = made(folder, half_wrong)
    notes = look_at(run)
    assert [example["row_id"] for example in notes.examples] == [e["row_id"] for e in look_at(run).examples]
    assert len({example["row_id"] for example in notes.examples}) == 5
    text = shown(notes)
    assert text.count("gold     Berlin") == 5
    assert "right    Berlin  [attention]" in text
    wrong = look_at(run, examples=3, only_wrong=True).examples
    assert [any(not answer["right"] for answer in example["said"]) for example in wrong] == [True] * 3
    assert shown(look_at(run, examples=3, only_wrong=True)).count("wrong    Rome  [origin]") == 3


def test_errors_are_counted_by_kind_with_a_row_each(folder):
    def change(i: int, method: str) -> dict[str, Any]:
        if i >= 30:
            return ERROR | {"error": f"a.jsonl, row {i}, field 'q': word {i} is empty (value: ''). Mend it."}
        return ERROR | {"error": f"a.jsonl, row {i}, field 'id': missing (value: 1)."} if i == 3 else {}

    notes = look_at(made(folder, change, methods=("attention",)))
    assert [(error[:16], rows) for error, rows in notes.errors] == [
        ("a.jsonl, row 30,", 10),
        ("a.jsonl, row 3, ", 1),
    ]
    text = shown(notes)
    assert "11 rows are errors" in text
    assert "10 x a.jsonl, row 30, field 'q': word 30 is empty (value: ''). Mend it." in text


@pytest.mark.parametrize(
    ("finish", "chat", "said"),
    [
        ("newline", False, "generation.stop_at_newline ends the answer: set it to false, or give few-shots"),
        ("newline", True, "generation.stop_at_newline ends the answer: set it to false."),
        ("eos", False, "ends at once (EOS): give few-shots"),
    ],
)
def test_empty_answers_are_pointed_out_with_their_likely_cause(folder, monkeypatch, finish, chat, said):
    monkeypatch.setitem(CONFIG, "prompt", {"chat": chat})

    def change(i: int, method: str) -> dict[str, Any]:
        return {"prediction": " ", "correct": False, "finish_reason": finish} if i < 10 else {}

    warning, _ = look_at(made(folder, change, methods=("attention",))).warnings
    assert warning.startswith("attention: 25.0% of the answers are empty (10 of 40). ")
    assert said in warning


def test_an_instruct_model_without_chat_is_named_as_the_cause(folder, monkeypatch):
    assert not has_chat_template("none")
    monkeypatch.setattr("flexray.report.odd.has_chat_template", lambda path: path == "none")
    notes = look_at(
        made(folder, lambda i, method: {"prediction": "", "correct": False}, methods=("attention",))
    )
    assert "prompt.chat is off: try --set prompt.chat=true" in notes.warnings[0]


def test_equal_answers_and_those_cut_by_their_length_are_pointed_out(folder):
    def change(i: int, method: str) -> dict[str, Any]:
        return {"prediction": f"p{i}" if i < 15 else "Yes", "finish_reason": "length" if i < 20 else "eos"}

    equal, cut = look_at(made(folder, change, methods=("attention",))).warnings
    assert "62.5% of the answers are the same, 'Yes'" in equal
    assert "50.0% of the answers were cut off at generation.max_new_tokens (16)" in cut


def test_nothing_is_said_of_accuracy_where_nothing_is_scored(folder):
    text = shown(look_at(made(folder, lambda i, method: {"answers": None, "correct": None})))
    assert "accuracy" not in text
    assert "gold" not in text
    assert "answer   Berlin" in text
    assert "flexray evaluate" not in text


def test_of_many_shards_some_are_read_and_that_is_said(folder, monkeypatch):
    monkeypatch.setattr("flexray.report.notes.MAX_SHARDS", 2)
    notes = look_at(made(folder, shards=3, methods=("attention",)))
    assert notes.accuracy["attention"].rows == 80
    assert "From 2 of 3 shards:" in shown(notes)


def test_texts_are_never_markup_or_control_characters(folder):
    bad = "[bold]x[/red] \x1b[31m"
    text = shown(
        look_at(made(folder, lambda i, method: {"question": bad, "prediction": bad})), output="my out"
    )
    assert "[bold]x[/red] \\x1b[31m" in text
    assert "\x1b" not in text
    assert "flexray report 'my out'" in text


def test_answers_in_sentences_are_pointed_out_with_what_to_do(folder):
    def change(i: int, method: str) -> dict[str, Any]:
        return {"prediction": "It is Berlin." if i % 4 else "It is Rome.", "correct": False}

    warnings = look_at(made(folder, change, methods=("m",))).warnings
    (warning,) = [text for text in warnings if "exact match" in text]
    assert warning.startswith("m: exact match is 0.0%, but 75.0% of the answers contain an accepted one")
    assert "evaluation.headline=contains" in warning


def test_it_counts_by_the_headline_metric_of_the_recipe(folder, monkeypatch):
    monkeypatch.setitem(CONFIG, "evaluation", {"headline": "contains"})
    change = {"prediction": "It is Berlin", "correct": False}
    notes = look_at(made(folder, lambda i, method: change, methods=("m",)))
    assert (notes.run.headline.name, notes.accuracy["m"].accuracy) == ("contains", 1.0)
    assert [text for text in notes.warnings if "exact match" in text] == []
    line = next(line.split() for line in shown(notes).splitlines() if line.startswith("m "))
    assert line[3:6] == ["40", "40", "100.0%"]


def test_a_headline_metric_that_is_not_known_here_is_said(folder, monkeypatch):
    monkeypatch.setitem(CONFIG, "evaluation", {"headline": "mine"})
    notes = look_at(made(folder, methods=("m",)))
    assert (notes.run.headline.name, notes.accuracy["m"].accuracy) == ("exact_match", 1.0)
    assert notes.warnings[0].startswith("scored by exact match, as evaluation.headline: there is no metric")


def test_a_damaged_file_is_left_out_and_told_with_what_to_do(folder):
    made(folder, shards=2)
    data = f"data/{folder.list('data')[0]}"
    folder.write_bytes(data, folder.read_bytes(data)[:-1] + b"x")
    text = shown(look_at(RunFolder.open(folder.url)), output="my out")
    (line,) = [line for line in text.splitlines() if line.startswith("left out: ")]
    assert data in line
    assert "flexray repair 'my out', then the run again, computes what they held." in text
    done = CliRunner().invoke(app, ["show", folder.url])
    assert (done.exit_code, "left out: " in done.stdout) == (1, True)
