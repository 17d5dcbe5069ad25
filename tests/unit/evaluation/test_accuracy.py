"""Accuracy counts answered rows with gold answers only, and streams over tables."""

from __future__ import annotations

import pyarrow as pa
import pytest

from flexray.evaluation.accuracy import ScoreCounts, accuracy_by_method, wilson_interval


def rows(*cells: tuple[str, str, bool | None]) -> pa.Table:
    schema = pa.schema([("method", pa.string()), ("error", pa.string()), ("correct", pa.bool_())])
    return pa.Table.from_pylist([dict(zip(schema.names, cell, strict=True)) for cell in cells], schema)


def test_methods_are_counted_apart_over_all_tables():
    tables = iter(
        [
            rows(("b", "", True), ("a", "", False), ("a", "broken", None)),
            rows(("a", "", True), ("a", "", None)),
            rows(),
        ]
    )
    found = accuracy_by_method(tables)
    assert list(found) == ["a", "b"]
    assert found["a"] == ScoreCounts(rows=4, errors=1, scored=2, correct=1)
    assert found["a"].answered == 3
    assert found["a"].accuracy == 0.5
    assert found["b"] == ScoreCounts(rows=1, errors=0, scored=1, correct=1)


def test_tables_are_taken_one_at_a_time():
    before, held = pa.total_allocated_bytes(), []

    def stream():
        for _ in range(20):
            yield rows(*[("a" * 100, "", True)] * 1_000)
            held.append(pa.total_allocated_bytes() - before)

    assert accuracy_by_method(stream())["a" * 100].rows == 20_000
    assert max(held) < 3 * held[0]


def test_no_tables_give_no_methods():
    assert accuracy_by_method([]) == {}


def test_without_gold_answers_there_is_no_accuracy():
    score = accuracy_by_method([rows(("a", "", None))])["a"]
    assert score.rows == 1
    assert score.accuracy is None
    assert score.interval is None


def test_the_interval_is_wilsons():
    # Brown, Cai and DasGupta 2001: 95 % Wilson interval of 5 in 10.
    assert wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


@pytest.mark.parametrize("n", [1, 7, 1000])
def test_the_interval_holds_the_share_and_stays_in_bounds(n):
    for k in range(n + 1):
        low, high = wilson_interval(k, n)
        assert 0 <= low <= k / n <= high <= 1
        assert low < high


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="trials"):
        wilson_interval(successes, trials)
