"""Rows that are answered now take the places of error rows, and nothing else moves."""

import pyarrow as pa

from flexray.runs.retry_errors import RetryResult, merge


def table(*rows):
    return pa.Table.from_pylist(
        [dict(zip(("method", "row_id", "error", "prediction"), row, strict=True)) for row in rows]
    )


def test_an_answer_takes_the_place_of_its_error_row_by_method_and_row_id():
    old = table(("a", "1", "", "Rome"), ("a", "2", "bad", ""), ("b", "1", "bad", ""), ("b", "2", "", "Bonn"))
    new = table(("b", "1", "", "Roma"), ("a", "2", "", "Berlin"), ("b", "2", "", "other"))
    assert (
        merge(old, new).to_pylist()
        == table(
            ("a", "1", "", "Rome"), ("a", "2", "", "Berlin"), ("b", "1", "", "Roma"), ("b", "2", "", "Bonn")
        ).to_pylist()
    )


def test_an_error_that_stays_one_keeps_its_first_message():
    old = table(("a", "1", "bad", ""), ("a", "2", "worse", ""))
    assert merge(old, table(("a", "1", "still bad", ""))).equals(old)


def test_the_sum_counts_what_is_still_an_error():
    assert RetryResult(retried=5, answered=3).summary_line() == "retried=5 answered=3 still_errors=2"
