"""Each question is answered by each of the run's methods: a row is known by method and row id."""

import pyarrow as pa
import pytest

from flexray.errors import OutputError
from flexray.sink import compact, read_committed, verify
from flexray.sink.commit import CommitError
from tests.unit.sink.builders import SHARDS, commit, forge, row, start, table

A, B, _ = SHARDS


def test_other_methods_are_refused_and_so_is_another_order_of_them(folder):
    start(folder, methods=("m", "n"))
    with pytest.raises(OutputError, match=r'methods: \["m", "n"\] -> \["n", "m"\]'):
        start(folder, methods=("n", "m"))
    assert start(folder, methods=["m", "n"]).planned_rows == 24


@pytest.mark.parametrize("methods", [(), ("m", "m")])
def test_methods_are_named_once_each(folder, methods):
    with pytest.raises(ValueError, match="at least one method is needed, and each only once"):
        start(folder, methods=methods)


def test_a_shard_has_the_rows_of_its_questions_for_each_method_in_order(folder):
    run = start(folder, methods=("n", "m"))
    both = table(A, methods=("n", "m"))
    for wrong in (table(A), table(A, methods=("m", "n")), pa.concat_tables([both, both])):
        with pytest.raises(CommitError, match="are not the 8 expected rows in the expected order"):
            commit(folder, run, A, table=wrong)
    manifest = commit(folder, run, A)
    assert manifest.accounting.rows_by_method == {"m": 4, "n": 4}
    assert list(read_committed(folder)) == [both]


@pytest.mark.parametrize("compacted", [False, True])
def test_rows_are_counted_by_method_and_row_id(folder, compacted):
    run = start(folder, methods=("m", "n"))
    commit(folder, run, A)
    rows = table(B, methods=run.methods).to_pylist()
    forge(
        folder,
        commit(folder, run, B),
        table(B, rows=[*rows[1:], rows[5], row(B.row_ids[0], "b", method="x")]),
    )
    if compacted:
        compact(folder, run.fingerprint, max_singles=0)
    # of b's eight rows one is lost, one doubled, and one by a method that the run does not have
    report = verify(folder)
    assert report.summary_line() == "rows=17 missing=9 doubled=1 damaged=0 unaccounted=1"
    assert report.planned_rows == 24
    kinds = {finding.kind: finding for finding in report.findings}
    assert "(qa/test/b0 by x)" in kinds["unknown_rows"].what
    assert "(qa/test/b1 by n)" in kinds["doubled_rows"].what
    assert "shard b lacks 1 planned row(s) (qa/test/b0 by m)" in kinds["incomplete_shard"].what
