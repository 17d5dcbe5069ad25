"""By relation: micro weighs questions alike, macro relations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.evaluation.accuracy import wilson_interval
from flexray.evaluation.bootstrap import Bootstrap
from flexray.evaluation.relations import by_relation
from tests.unit.evaluation.builders import answered, failed, scores_of

FEW = Bootstrap(resamples=100)
ROW = st.tuples(st.sampled_from(["", "P19", "P36", "capital of"]), st.sampled_from(["Berlin", "Rome", None]))


def summary(*rows: tuple[str, str | None]):
    made = [
        failed("a", number, relation=relation)
        if prediction is None
        else answered("a", number, prediction, relation=relation)
        for number, (relation, prediction) in enumerate(rows)
    ]
    return by_relation(scores_of(made)["a"], FEW)


def test_means_are_over_questions_and_over_relations_and_rows_without_one_are_counted_apart():
    found = summary(
        ("P36", "Berlin"), ("P36", "Rome"), ("P36", "Rome"), ("P36", "Rome"), ("P19", "Berlin"), ("", "Rome"),
        ("P19", None),
    )  # fmt: skip
    assert (found.questions, found.without_relation) == (5, 1)
    assert found.micro["exact_match"].mean == pytest.approx(2 / 5)
    assert found.micro["exact_match"].interval == pytest.approx(wilson_interval(2, 5))
    assert found.macro["exact_match"].mean == pytest.approx((1 / 4 + 1) / 2)
    assert found.macro["exact_match"].interval == pytest.approx(wilson_interval(0.625 * 3.2, 3.2))
    assert [(r.relation, r.questions, r.correct) for r in found.relations] == [("P19", 1, 1), ("P36", 4, 1)]
    assert found.relations[1].interval == wilson_interval(1, 4)
    assert found.relations[1].means["f1"] == pytest.approx(1 / 4)


def test_without_relations_there_is_no_summary():
    assert summary(("", "Berlin"), ("", "Rome")) is None
    assert summary(("P19", None)) is None


def test_a_relation_to_which_a_metric_does_not_apply_is_left_out_of_its_macro_mean():
    rows = [
        answered("a", 0, "New York", relation="P19", answers=["New York"]),
        answered("a", 1, "Berlin wall", relation="P36"),
    ]
    found = by_relation(scores_of(rows)["a"], FEW)
    assert found.relations[0].means["first_word_match"] is None
    assert found.macro["first_word_match"].mean == 1
    assert found.macro["exact_match"].mean == 0.5


@given(st.lists(ROW, min_size=1, max_size=20))
def test_micro_and_macro_are_those_of_plain_loops(rows):
    found = summary(*rows)
    groups: dict[str, list[bool]] = {}
    for relation, prediction in rows:
        if relation and prediction is not None:
            groups.setdefault(relation, []).append(prediction == "Berlin")
    if not groups:
        assert found is None
        return
    shares = [sum(group) / len(group) for group in groups.values()]
    every = [right for group in groups.values() for right in group]
    assert found.macro["exact_match"].mean == pytest.approx(sum(shares) / len(shares))
    assert found.micro["exact_match"].mean == pytest.approx(sum(every) / len(every))
    assert [r.relation for r in found.relations] == sorted(groups)
    assert found.without_relation == sum(p is not None and not relation for relation, p in rows)
