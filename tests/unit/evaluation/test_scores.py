"""One pass over tables keeps a few numbers of each row and nothing of its text."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flexray.errors import OutputError
from flexray.evaluation.bootstrap import Bootstrap
from flexray.evaluation.scores import COLUMNS, collect_scores
from tests.unit.evaluation.builders import answered, failed, metrics, scores_of, table


def test_rows_errors_and_scored_rows_are_counted_apart():
    found = scores_of(
        [
            answered("b", 0, "Berlin"),
            failed("a", 0),
            answered("a", 1, "Berlin"),
            answered("a", 2, "Rome"),
            answered("a", 3, "Rome", answers=None),
        ]
    )
    assert list(found) == ["a", "b"]
    assert (found["a"].rows, found["a"].errors, found["a"].scored) == (4, 1, 2)
    assert (found["b"].rows, found["b"].errors, found["b"].scored) == (1, 0, 1)
    assert found["a"].values("exact_match").mean() == 0.5


def test_each_row_has_all_scores_whatever_the_order_of_the_rows():
    rows = [
        answered("a", 0, "Berlin"),
        answered("a", 1, "It is Berlin"),
        answered("a", 2, "Berlin, Germany"),
        answered("a", 3, "New York", answers=["York", "New York City"]),
        answered("a", 4, "New York", answers=["New York"]),
    ]
    found = scores_of(rows)["a"]
    again = scores_of(rows[::-1])["a"]
    by_row = {}
    for scores in (found, again):
        columns = (scores.values(m) for m in ("exact_match", "f1", "lemma_match", "first_word_match"))
        by_row = dict(zip(scores.row_keys.tolist(), zip(*columns, strict=True), strict=True))
        expected = [(1, 1, 1, 1), (0, 0.5, 1, 0), (0, 2 / 3, 1, 1), (0, 0.8, 1, 0), (1, 1, 1, np.nan)]
        assert sorted(map(str, by_row.values())) == sorted(str(tuple(map(np.float64, e))) for e in expected)
    assert np.array_equal(found.row_keys, again.row_keys)
    assert np.array_equal(found.values("f1"), again.values("f1"))


def test_exact_match_is_what_the_run_found():
    row = answered("a", 0, "Rome", correct=True)
    assert scores_of([row])["a"].values("exact_match").tolist() == [1]


def test_paraphrases_of_error_rows_are_not_counted():
    rows = [
        answered("p", 0, "Berlin", paraphrase_predictions=["Berlin", "Rome"]),
        failed("p", 1, paraphrase_predictions=["Berlin", "Berlin"]),
    ]
    found = scores_of(rows)["p"].paraphrases.summary(Bootstrap(resamples=10))
    assert found is not None
    assert found.paraphrases == 2


def test_a_row_that_is_there_twice_is_refused():
    with pytest.raises(OutputError, match=r"out: method 'a' has a row twice"):
        scores_of([answered("a", 0, "Berlin"), answered("a", 0, "Rome")])


def test_other_columns_are_not_needed():
    small = table([answered("a", 0, "Berlin")]).select(COLUMNS)
    assert collect_scores([small], metrics(), where="out")["a"].scored == 1


def test_no_tables_give_no_methods():
    assert collect_scores([], metrics(), where="out") == {}


def test_tens_of_thousands_of_rows_stream_through_little_memory():
    rows_each, tables, texts = 1_000, 40, ["Berlin", "It is Berlin", "Rome", "Bonn, or Berlin?"]
    predictions = [texts[i % 4] for i in range(rows_each)]
    arrow: list[int] = []

    def stream():
        for number in range(tables):
            ids = [f"qa/test/{number}-{i}" for i in range(rows_each)]
            rows = {
                "method": ["a", "b"] * (rows_each // 2),
                "error": [""] * rows_each,
                "correct": [text == "Berlin" for text in predictions],
                "row_id": ids,
                "answers": [["Berlin"]] * rows_each,
                "relation": ["P36"] * rows_each,
                "prediction": predictions,
                "paraphrase_predictions": [[]] * rows_each,
                # 2 kB a row
                "question": pc.binary_join_element_wise(pa.array(ids), "very " * 400, " "),
            }
            made = pa.table(rows, schema=table([]).select([*COLUMNS, "question"]).schema)
            del rows
            yield made
            del made
            arrow.append(pa.total_allocated_bytes())

    scores_of([answered("a", 0, "Berlin")])  # imports
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        found = collect_scores(stream(), metrics(), where="out")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found["a"].scored + found["b"].scored == rows_each * tables
    assert found["a"].values("exact_match").mean() == 0.5
    # 40,000 rows of 28 bytes, lists that grow, a copy in sorted order, and one table in the making
    assert peak < 5e6
    assert max(arrow) - before < 5e6
