"""`flexray evaluate` on real output folders: what is read, compared, written and refused."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from flexray.cli import app
from flexray.errors import OutputError, UserError
from flexray.evaluation import Bootstrap, accuracy_by_method, evaluate
from flexray.sink import OutputFolder, read_committed
from tests.unit.evaluation.builders import answered, commit_run, failed

FEW = Bootstrap(resamples=100)

RELATIONS = ["P19", "P36", "P36", ""]


def rows_of(method: str, *predictions: str, **changes) -> list[dict]:
    return [
        answered(method, number, prediction, relation=RELATIONS[number % 4], **changes)
        for number, prediction in enumerate(predictions)
    ]


@pytest.fixture
def out(tmp_path):
    """A run of three methods on four questions; the last one is an error of method `avg`."""
    path = str(tmp_path / "out")
    alone = [["Berlin", "berlin."], ["Berlin", "Rome"], ["Rome", "Rome"], ["Bonn", "Rome"]]
    per_prompt = rows_of("per_prompt", "Berlin", "Berlin", "Rome", "Bonn")
    for row, predictions in zip(per_prompt, alone, strict=True):
        row["paraphrase_predictions"] = predictions
    attention = rows_of("attention/shared_context/restart", "Berlin", "Berlin", "Berlin wall", "Berlin")
    average = [*rows_of("avg", "Berlin", "Rome", "Rome"), failed("avg", 3)]
    commit_run(path, [*attention, *per_prompt, *average])
    return path


def command(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["evaluate", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_every_method_is_scored_as_the_run_itself_counted(out):
    found = evaluate([out], bootstrap=FEW)
    counted = accuracy_by_method(read_committed(OutputFolder(out)))
    assert [method.label for method in found.methods] == list(counted)
    for method in found.methods:
        count = counted[method.method]
        exact = method.metrics["exact_match"]
        assert (method.rows, method.errors, method.scored) == (count.rows, count.errors, count.scored)
        assert exact is not None
        assert (exact.questions, exact.mean) == (count.scored, count.accuracy)
        assert exact.interval == pytest.approx(count.interval)


def test_paraphrases_and_relations_are_of_the_methods_that_have_them(out):
    attention, average, per_prompt = evaluate([out], bootstrap=FEW).methods
    assert attention.paraphrases is average.paraphrases is None
    alone = per_prompt.paraphrases
    assert (alone.accuracy.mean, alone.any_right.mean, alone.every_right.mean) == (3 / 8, 1 / 2, 1 / 4)
    assert alone.consistency.mean == 1 / 2
    assert attention.relations.without_relation == 1
    assert attention.relations.macro["exact_match"].mean == 3 / 4


def test_methods_are_compared_pair_by_pair_or_with_a_baseline(out):
    pairs = evaluate([out], bootstrap=FEW).comparisons
    assert [(c.method, c.other) for c in pairs] == [
        ("attention/shared_context/restart", "avg"),
        ("attention/shared_context/restart", "per_prompt"),
        ("avg", "per_prompt"),
    ]
    assert [c.questions for c in pairs] == [3, 4, 3]
    with_baseline = evaluate([out], baseline="avg", bootstrap=FEW).comparisons
    assert [(c.method, c.other) for c in with_baseline] == [
        ("attention/shared_context/restart", "avg"),
        ("per_prompt", "avg"),
    ]
    assert with_baseline[0] == pairs[0]


def test_methods_of_several_folders_are_named_by_folder_where_names_collide(out, tmp_path):
    other = str(tmp_path / "night2")
    commit_run(other, [*rows_of("avg", "Berlin", "Berlin", "Berlin", "Rome"), *rows_of("max", *["Rome"] * 4)])
    found = evaluate([out, other + "/"], baseline="night2:avg", bootstrap=FEW)
    assert [method.label for method in found.methods] == [
        "attention/shared_context/restart",
        "out:avg",
        "per_prompt",
        "night2:avg",
        "max",
    ]
    against = {c.method: c for c in found.comparisons}["out:avg"]
    assert (against.questions, against.both_right, against.only_other_right) == (3, 1, 2)


def test_folders_of_the_same_name_are_named_in_full(tmp_path):
    paths = [str(tmp_path / night / "out") for night in ("a", "b")]
    for path in paths:
        commit_run(path, rows_of("avg", "Berlin"))
    found = evaluate(paths, bootstrap=FEW)
    assert [method.label for method in found.methods] == [f"{path}:avg" for path in paths]


def test_folders_without_a_row_in_common_have_nothing_to_compare(tmp_path):
    commit_run(str(tmp_path / "a"), rows_of("avg", "Berlin"))
    commit_run(str(tmp_path / "b"), [answered("max", 77, "Berlin")])
    (comparison,) = evaluate([str(tmp_path / "a"), str(tmp_path / "b")], bootstrap=FEW).comparisons
    assert (comparison.questions, comparison.mcnemar_p) == (0, None)
    code, text, _ = command(str(tmp_path / "a"), str(tmp_path / "b"))
    assert code == 0
    assert "Difference from max" in text


def test_the_same_output_gives_the_same_json(out):
    assert evaluate([out], bootstrap=FEW).to_json() == evaluate([out], bootstrap=FEW).to_json()


def test_the_command_prints_tables_and_writes_everything_as_json(out, tmp_path):
    file = tmp_path / "results" / "night.json"
    code, text, error = command(out, "--json", str(file), "--baseline", "avg", "--by-relation")
    assert (code, error) == (0, "")
    for title in (
        "Methods",
        "Paraphrases answered alone",
        "Over relations",
        "By relation",
        "Difference from avg",
    ):
        assert title in text
    tree = json.loads(file.read_text())
    assert tree == json.loads(evaluate([out], baseline="avg").to_json())
    assert tree["baseline"] == "avg"
    assert tree["folders"][0] | {"fingerprint": ""} == {
        "folder": out, "fingerprint": "", "planned_rows": 12, "committed_rows": 12, "differs": []
    }  # fmt: skip
    assert tree["methods"][0]["relations"]["relations"][1]["relation"] == "P36"
    assert tree["comparisons"][0]["differences"]["exact_match"]["questions"] == 3


def test_relations_are_printed_one_by_one_only_if_asked_for(out):
    assert "By relation" not in command(out)[1]


def test_rows_that_are_not_committed_yet_are_told(tmp_path):
    commit_run(str(tmp_path / "out"), rows_of("avg", "Berlin", "Rome"), planned=5)
    code, text, _ = command(str(tmp_path / "out"))
    assert code == 0
    assert f"{tmp_path}/out: 2 of 5 planned rows are committed." in text


def test_what_is_no_run_is_refused(out, tmp_path):
    (tmp_path / "empty").mkdir()
    code, text, error = command(out, str(tmp_path / "empty"))
    assert (code, text) == (2, "")
    assert error.startswith(f"error: {tmp_path}/empty: holds no run")


def test_a_run_without_scored_rows_is_refused(tmp_path):
    path = str(tmp_path / "out")
    commit_run(path, [answered("avg", 0, "Berlin", answers=None), failed("avg", 1)])
    with pytest.raises(OutputError, match=r"out: none of its 2 committed rows is scored"):
        evaluate([path])


def test_a_damaged_run_is_refused(out):
    folder = OutputFolder(out)
    (name,) = folder.list("data")
    folder.write_bytes(f"data/{name}", folder.read_bytes(f"data/{name}")[:-1])
    code, text, error = command(out)
    assert (code, text) == (2, "")
    assert name in error


def test_an_unknown_baseline_is_refused_with_those_there_are(out):
    code, text, error = command(out, "--baseline", "average")
    assert (code, text) == (2, "")
    assert "--baseline average: there is no such method" in error
    assert "attention/shared_context/restart, avg, per_prompt" in error


def test_the_same_folder_twice_is_refused(out):
    with pytest.raises(UserError, match="is named twice"):
        evaluate([out, out + "/"])


def test_runs_of_other_answers_are_not_compared(out, tmp_path):
    other = str(tmp_path / "other")
    commit_run(other, rows_of("max", "Bonn", "Bonn", answers=["Bonn"]))
    with pytest.raises(OutputError, match="other accepted answers"):
        evaluate([out, other])


def test_what_was_set_otherwise_in_a_second_run_is_told(out, tmp_path):
    other = str(tmp_path / "other")
    commit_run(other, rows_of("avg", "Berlin", "Rome"), config={"model": {"path": "larger"}})
    first, second = evaluate([out, other], bootstrap=FEW).folders
    assert first.differs == ()
    assert 'config.model.path: "m" -> "larger"' in second.differs
    code, text, _ = command(out, other)
    assert code == 0
    assert f"{other}: what is other than in the first folder:" in text.replace("\n", "")
    assert '  config.model.path: "m" -> "larger"' in text


def test_a_json_file_that_cannot_be_written_is_told_behind_the_tables(out):
    code, text, error = command(out, "--json", f"{out}/_run.json/x.json")
    assert code == 2
    assert "Methods" in text
    assert f"{out}/_run.json/x.json: cannot be written" in error
