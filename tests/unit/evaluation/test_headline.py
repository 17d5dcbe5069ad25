"""The headline metric: what methods are compared by, as the recipe says or for one evaluation."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

import flexray
from flexray.cli import app
from flexray.config import EvaluationConfig, parse_config
from flexray.errors import ConfigError
from flexray.evaluation import Bootstrap, evaluate
from flexray.evaluation.answer_metrics import PLAIN_TOKENS
from flexray.evaluation.metrics import DEFAULT, make_metrics
from flexray.evaluation.paired import compare
from tests.unit.evaluation.builders import answered, commit_run, scores_of

FEW = Bootstrap(resamples=50)
SENTENCES = ["The capital is Berlin.", "Berlin, of course.", "It was Rome.", "That is Berlin"]
CONTAINS = "evaluation.headline=contains"


@pytest.fixture
def chat(tmp_path):
    """A run of a method that answers in sentences and one that is asked for each paraphrase alone."""
    path = str(tmp_path / "chat")
    alone = [answered("per_prompt", i, text, relation="P36") for i, text in enumerate(SENTENCES)]
    for row, text in zip(alone, SENTENCES, strict=True):
        row["paraphrase_predictions"] = [text, "Rome"]
    fused = [answered("attention", i, "in Berlin", relation="P36") for i in range(4)]
    commit_run(path, [*fused, *alone])
    return path


def test_counts_intervals_and_paraphrases_are_of_the_headline_metric(chat):
    found = evaluate([chat], overrides=[CONTAINS], bootstrap=FEW)
    attention, per_prompt = found.methods
    assert list(attention.metrics) == ["contains", "exact_match", "f1", "lemma_match", "first_word_match"]
    assert (attention.metrics["contains"].mean, attention.metrics["exact_match"].mean) == (1, 0)
    (pair,) = found.comparisons
    assert (pair.both_right, pair.only_method_right, pair.only_other_right) == (3, 1, 0)
    assert per_prompt.relations.relations[0].correct == 3
    assert per_prompt.relations.relations[0].interval == per_prompt.metrics["contains"].interval
    alone = per_prompt.paraphrases
    assert (alone.accuracy.mean, alone.any_right.mean, alone.every_right.mean) == (3 / 8, 3 / 4, 0)
    assert (alone.best.position, alone.best.accuracy) == (1, 3 / 4)
    by_exact_match = evaluate([chat], bootstrap=FEW)
    assert by_exact_match.comparisons[0].neither_right == 4


def test_the_unit_is_the_question_however_many_answers_it_has(tmp_path):
    """Ten copies of a question's paraphrases make no interval narrower."""
    intervals = []
    for copies in (1, 10):
        path = str(tmp_path / str(copies))
        rows = [answered("per_prompt", i, "Berlin" if i % 2 else "Rome") for i in range(20)]
        for row in rows:
            row["paraphrase_predictions"] = ["Berlin", row["prediction"]] * copies
            row["samples"] = [row["prediction"]] * copies
        commit_run(path, [*rows, *(answered("origin", i, "Berlin") for i in range(20))])
        found = evaluate([path], bootstrap=FEW)
        alone, (pair,) = found.methods[1].paraphrases.accuracy, found.comparisons
        assert (alone.questions, pair.questions) == (20, 20)
        intervals.append((alone.interval, pair.mcnemar_p, pair.differences["f1"].interval))
    assert intervals[0] == intervals[1]


def test_exact_match_is_low_and_the_answers_are_in_sentences(chat):
    def printed(*arguments):
        done = CliRunner().invoke(app, ["evaluate", chat, *arguments])
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    text = printed()
    assert "attention: exact match is 0.0%, but 100.0% of the answers contain an accepted one" in text
    assert "evaluation.headline=contains" in text
    text = printed("--set", CONTAINS)
    assert "exact match is" not in text
    assert "Paraphrases answered alone, by contains" in text


def test_several_metrics_at_once_with_their_settings(chat):
    found = flexray.evaluate(
        chat,
        overrides=[
            "evaluation.metrics=[first_line, numeric, extract, lemma_either]",
            r"evaluation.extract='(?:is|was) (\w+)'",
            "evaluation.headline=extract",
        ],
    )
    per_prompt = found.methods[1].metrics
    assert list(per_prompt) == ["extract", "first_line", "numeric", "lemma_either"]
    assert per_prompt["extract"].mean == 2 / 4
    assert per_prompt["numeric"] is None
    tree = json.loads(found.to_json())
    assert tree["settings"]["headline"] == "extract"


def test_a_metric_that_does_not_apply_everywhere_can_be_the_headline():
    rows = [
        answered(m, i, "10" if i == 1 else "x", answers=[answer])
        for m in ("a", "b")
        for i, answer in enumerate(["Berlin", "10.0", "3"])
    ]
    found = scores_of(rows, headline="numeric")
    assert found["a"].headline == "numeric"
    assert found["a"].accuracy == 0.5
    pair = compare("a", found["a"], "b", found["b"], FEW)
    assert (pair.questions, pair.both_right, pair.neither_right, pair.mcnemar_p) == (3, 1, 1, 1.0)


def test_by_default_there_are_those_that_need_no_setting():
    assert tuple(make_metrics(EvaluationConfig(), PLAIN_TOKENS)) == DEFAULT
    assert tuple(make_metrics(EvaluationConfig(extract="x"), PLAIN_TOKENS)) == (*DEFAULT, "extract")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "evaluation.headline=exact",
            "evaluation.headline: there is no metric 'exact'. There are: exact_match",
        ),
        ("evaluation.metrics=[f1, em]", "evaluation.metrics: there is no metric 'em'"),
        ("evaluation.headlin=f1", "Unknown key (did you mean headline?)"),
        ("evaluation.extract='('", "evaluation.extract: is no regular expression"),
        ("evaluation.metrics=extract", "needs the regular expression `extract`"),
        ("evaluation.tolerance=2", "evaluation.tolerance"),
        ("data.limit=3", "--set data: only keys of the section evaluation"),
        ("evaluation=3", "evaluation: Input should be a valid dictionary"),
    ],
)
def test_what_cannot_be_used_is_named(chat, override, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        evaluate([chat], overrides=[override])


def test_a_recipe_with_a_pattern_that_cannot_be_used_is_refused():
    tree = {"output": "o", "data": {"name": "q", "files": "f"}, "model": {"path": "m"}}
    with pytest.raises(
        ConfigError, match=r"evaluation.extract: is no regular expression: .* \(value: '\['\)"
    ):
        parse_config(tree | {"evaluation": {"extract": "["}}, source="r.yaml")
