"""A metric registered from outside is evaluated, printed, compared and written like those of flexray."""

import io
import json
import math

import pytest
from rich.console import Console

from flexray.errors import ConfigError
from flexray.evaluation import evaluate, print_evaluation, register_metric
from flexray.evaluation.metrics import _REGISTERED
from tests.unit.evaluation.builders import answered, commit_run, scores_of


@pytest.fixture
def register():
    """`register_metric`, undone after the test."""

    def do(name, function):
        register_metric(name, function)
        registered.append(name)

    registered = []
    yield do
    for name in registered:
        del _REGISTERED[name]


def length_share(prediction, answers):
    return min(1.0, len(prediction) / max(map(len, answers)))


def test_it_is_evaluated_compared_printed_and_written(register, tmp_path):
    register("length", length_share)
    rows = [answered(method, i, text) for method, text in (("a", "Ber"), ("b", "Berlin")) for i in range(3)]
    commit_run(str(tmp_path / "out"), rows)
    found = evaluate([str(tmp_path / "out")])
    assert [method.metrics["length"].mean for method in found.methods] == [0.5, 1.0]
    assert found.comparisons[0].differences["length"].difference == -0.5
    assert json.loads(found.to_json())["methods"][0]["metrics"]["length"]["mean"] == 0.5
    printed = io.StringIO()
    print_evaluation(found, console=Console(file=printed, width=160))
    assert "length" in printed.getvalue()


def test_rows_that_it_does_not_apply_to_are_left_out(register):
    register("short", lambda prediction, answers: math.nan if len(prediction) > 4 else 1.0)
    values = scores_of([answered("a", 0, "Berlin"), answered("a", 1, "Rome")])["a"].values("short")
    assert sorted(values, key=str) == [1.0, pytest.approx(math.nan, nan_ok=True)]


@pytest.mark.parametrize("wrong", [1.5, -0.1, None, "much"])
def test_what_is_no_number_from_0_to_1_is_refused_by_name(register, wrong):
    register("wrong", lambda prediction, answers: wrong)
    with pytest.raises(ConfigError, match=r"metric 'wrong': gives .* for the prediction 'Berlin'"):
        scores_of([answered("a", 0, "Berlin")])


@pytest.mark.parametrize("name", ["f1", "exact_match"])
def test_a_name_that_is_taken_is_refused(name):
    with pytest.raises(ConfigError, match=f"metric '{name}'"):
        register_metric(name, length_share)
