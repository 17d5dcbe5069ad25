"""Each question is answered by each of the run's methods: a row is known by method and row id."""

from dataclasses import replace

import pyarrow as pa
import pytest

from flexray.sink import compact, read_committed, verify
from flexray.sink.commit.shard import CommitError
from tests.unit.sink.builders import commit, forge, planned, row, start, table


@pytest.mark.parametrize("methods", [(), ("m", "m")])
def test_methods_are_named_once_each(folder, methods):
    with pytest.raises(ValueError, match="at least one method is needed, and each only once"):
        start(folder, methods=methods)


def test_a_shard_has_the_rows_of_its_questions_for_each_method_in_order(folder):
    run = start(folder, methods=("n", "m"))
    first = planned(folder, run)[0]
    both, one, other = (table(replace(first, methods=m)) for m in (("n", "m"), ("m",), ("m", "n")))
    for wrong in (one, other, pa.concat_tables([both, both])):
        with pytest.raises(CommitError, match="are not the 8 expected rows in the expected order"):
            commit(folder, run, first, table=wrong)
    manifest = commit(folder, run, first)
    assert manifest.accounting.rows_by_method == {"m": 4, "n": 4}
    assert list(read_committed(folder)) == [both]


@pytest.mark.parametrize("compacted", [False, True])
def test_rows_are_counted_by_method_and_row_id(folder, compacted):
    run = start(folder, methods=("m", "n"))
    first, second, _ = planned(folder, run)
    commit(folder, run, first)
    rows = table(second).to_pylist()
    wrong = [*rows[1:], rows[5], row(second.row_ids[0], second.shard_id, method="x")]
    forge(folder, commit(folder, run, second), table(second, rows=wrong))
    if compacted:
        compact(folder, run.fingerprint, max_singles=0)
    # of the second shard's rows one is lost, one doubled, and one by a method that the run does not have
    report = verify(folder)
    assert report.summary_line() == "rows=17 missing=9 doubled=1 damaged=0 unaccounted=1"
    assert report.planned_rows == 24
    kinds = {finding.kind: finding for finding in report.findings}
    assert "(qa/test/4 by x)" in kinds["unknown_rows"].what
    assert "(qa/test/5 by n)" in kinds["doubled_rows"].what
    assert (
        f"shard {second.shard_id} lacks 1 planned row(s) (qa/test/4 by m)" in kinds["incomplete_shard"].what
    )
