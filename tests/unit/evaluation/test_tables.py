"""An evaluation on the console: names as they are, and a dash for what there is not."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from flexray.config import EvaluationConfig
from flexray.evaluation.bootstrap import Bootstrap, estimate_mean
from flexray.evaluation.evaluate import Evaluation, FolderSummary, MethodSummary
from flexray.evaluation.paired import compare
from flexray.evaluation.relations import by_relation
from flexray.evaluation.tables import print_evaluation
from tests.unit.evaluation.builders import answered, scores_of

FEW = Bootstrap(resamples=100)


def evaluation(methods: dict[str, list[dict]], baseline: str | None = None) -> Evaluation:
    found = scores_of([row for rows in methods.values() for row in rows])
    return Evaluation(
        flexray="0",
        settings=EvaluationConfig(),
        lemmas="normalised tokens",
        bootstrap=FEW,
        folders=(FolderSummary(folder="out", fingerprint="f", planned_rows=8, committed_rows=8),),
        methods=tuple(
            MethodSummary(
                label=name,
                folder="out",
                method=name,
                rows=scores.rows,
                errors=scores.errors,
                scored=scores.scored,
                metrics={metric: estimate_mean(scores.values(metric), FEW) for metric in scores.metrics},
                relations=by_relation(scores, FEW),
                paraphrases=scores.paraphrases.summary(FEW),
            )
            for name, scores in found.items()
        ),
        baseline=baseline,
        comparisons=tuple(
            compare(name, scores, baseline, found[baseline], FEW)
            for name, scores in found.items()
            if baseline and name != baseline
        ),
    )


def printed(found: Evaluation, width: int = 120, **options: bool) -> str:
    out = io.StringIO()
    print_evaluation(found, console=Console(file=out, width=width), **options)
    return out.getvalue()


def rows(method: str, right: int, relation: str = "") -> list[dict]:
    return [answered(method, n, "Berlin" if n < right else "Rome", relation=relation) for n in range(4)]


def test_names_are_no_markup():
    text = printed(
        evaluation({"[red]x[/red]": rows("[red]x[/red]", 3, "[P36]"), "y": rows("y", 1, "[P36]")}, "y"),
        by_relation=True,
    )
    assert text.count("[red]x[/red]") == 4
    assert "[P36]" in text


def test_means_and_differences_are_in_percent():
    text = printed(evaluation({"a": rows("a", 3), "b": rows("b", 1)}, "b"))
    assert "75.0%" in text
    assert "25.0%" in text
    assert "+50.0" in text
    assert "Difference from b" in text
    assert "0.5000" in text  # McNemar's p of 2 against 0


def test_what_applies_to_no_row_is_a_dash():
    text = printed(evaluation({"a": [answered("a", 0, "New York", answers=["New York"])]}))
    (line,) = [line for line in text.splitlines() if line.startswith("a ")]
    assert line.split()[-1] == "-"


@pytest.mark.parametrize("name", ["attention/myriadlama/continuous/cross/scale -log N", "a" * 90])
def test_long_names_are_folded_and_the_numbers_stay(name):
    text = printed(evaluation({name: rows(name, 3), "b": rows("b", 1)}, "b"))
    assert max(map(len, text.splitlines())) <= 120
    assert "75.0%" in text
    assert "…" not in text


def test_a_long_name_is_broken_behind_its_separators():
    name = "night2:attention/myriadlama/continuous/cross/scale -log N"
    lines = printed(evaluation({name: rows(name, 3)}), width=130).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("night2:"))
    assert [line[:32].strip() for line in lines[at : at + 2]] == [
        "night2:attention/myriadlama/",
        "continuous/cross/scale -log N",
    ]


def test_notes_say_what_the_numbers_are():
    found = evaluation({"a": rows("a", 3), "b": rows("b", 1), "c": rows("c", 2)}, "b")
    text = printed(replace(found, folders=(replace(found.folders[0], committed_rows=5),)))
    assert "Of shares of right answers Wilson's" in text
    assert "bootstrap over questions (100 resamples, seed 0)" in " ".join(text.split())
    assert "Lemmas: normalised tokens." in text
    assert "not corrected for 2 comparisons" in text
    assert "out: 5 of 8 planned rows are committed." in text
