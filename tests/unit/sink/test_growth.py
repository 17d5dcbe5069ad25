"""A table grows: what a start adds to the plan, what it withdraws, and what it refuses."""

import pyarrow as pa
import pytest

from flexray.errors import DataError, OutputError
from flexray.sink import OutputFolder, committed_shards, compact, load_run, read_committed, repair, verify
from flexray.sink.plan.growth import MAX_METHODS
from flexray.sink.records import PLAN_FOLDER, RUN_FILE, manifest_name
from tests.unit.sink.builders import (
    ERROR,
    ROWS,
    A,
    B,
    C,
    Shard,
    commit,
    commit_all,
    finished,
    planned,
    question,
    row,
    shard_id,
    start,
    table,
)
from tests.unit.sink.damages import quiet

MORE = tuple(f"qa/test/{i}" for i in range(12, 18))


def seen(folder, **choice):
    """The keys of the rows that readers see, in order."""
    return [
        (r["method"], r["row_id"]) for found in read_committed(folder, **choice) for r in found.to_pylist()
    ]


def keys(methods, rows):
    return {(method, row_id) for method in methods for row_id in rows}


def asked(row_id, text="q?", **changes):
    return question(row_id, question=text, **changes)


def commit_rows(folder, run, shard, **changes):
    """Commit a shard of rows that ask what a changed source asks."""
    rows = [
        row(row_id, shard.shard_id, method=method, **changes)
        for method in shard.methods
        for row_id in shard.row_ids
    ]
    return commit(folder, run, shard, table=table(shard, rows=rows))


def test_more_rows_come_in_new_shards_and_the_others_stay(folder):
    first = finished(folder)
    run = start(folder, ROWS + MORE)
    assert run.plan[0] == first.plan[0]
    assert planned(folder, run)[3:] == [Shard(shard_id(3), MORE[:4]), Shard(shard_id(4), MORE[4:])]
    assert (run.planned_rows, run.next_shard) == (18, 5)
    assert len(commit_all(folder, run)) == 2
    assert seen(folder) == [("m", row_id) for row_id in ROWS + MORE]
    assert verify(folder).ok


def test_more_methods_answer_the_same_rows_in_new_shards(folder):
    finished(folder)
    run = start(folder, methods=("n", "m"))
    assert [(s.methods, s.row_ids) for s in planned(folder, run)[3:]] == [
        (("n",), s.row_ids) for s in (A, B, C)
    ]
    commit_all(folder, run)
    assert run.methods == ("m", "n")
    assert run.selection.methods == ("n", "m")
    assert set(seen(folder)) == keys("mn", ROWS)
    assert verify(folder).ok


def test_more_rows_and_methods_are_grouped_by_what_is_missing(folder):
    finished(folder)
    run = start(folder, ROWS + MORE, methods=("m", "n"), shard_rows=100)
    assert [(s.methods, s.row_ids) for s in planned(folder, run)[3:]] == [(("n",), ROWS), (("m", "n"), MORE)]
    commit_all(folder, run)
    assert len(seen(folder)) == 36
    assert set(seen(folder)) == keys("mn", ROWS + MORE)


def test_fewer_rows_are_left_out_and_come_back_without_work(folder):
    finished(folder)
    fewer = start(folder, ROWS[:6])
    assert planned(folder, fewer) == [A, B, C]
    assert fewer.selection.left_out.rows == 6
    assert set(seen(folder)) == keys("m", ROWS[:6])
    assert set(seen(folder, everything=True)) == keys("m", ROWS)
    assert commit_all(folder, fewer) == []
    again = start(folder)
    assert again.selection.left_out is None
    assert set(seen(folder)) == keys("m", ROWS)
    assert commit_all(folder, again) == []
    assert folder.list(PLAN_FOLDER) == ["0000.parquet"]
    assert verify(folder).ok


def test_fewer_methods_are_left_out_and_come_back_without_work(folder):
    finished(folder, methods=("m", "n"))
    run = start(folder, methods=("n",))
    assert commit_all(folder, run) == []
    assert set(seen(folder)) == keys("n", ROWS)
    assert set(seen(folder, methods=("m",))) == keys("m", ROWS)
    assert set(seen(folder, everything=True)) == keys("mn", ROWS)
    assert commit_all(folder, start(folder, methods=("m", "n"))) == []
    assert set(seen(folder)) == keys("mn", ROWS)


def test_a_limit_in_the_middle_of_a_shard_grows_by_the_rest(folder):
    finished(folder, ROWS[:6])
    assert [s.row_ids for s in commit_all(folder, start(folder))] == [ROWS[6:10], ROWS[10:]]
    assert set(seen(folder)) == keys("m", ROWS)
    assert len(seen(folder)) == 12


def test_an_interrupted_run_that_grows_withdraws_its_shards_and_uses_no_number_twice(folder):
    run = start(folder)
    commit(folder, run, B)
    grown = start(folder, ROWS + MORE[:2])
    part = grown.plan[0]
    assert part.withdrawn == ((0, 0), (2, 2))
    assert planned(folder, grown) == [
        B,
        Shard(shard_id(3), ROWS[:4]),
        Shard(shard_id(4), ROWS[8:]),
        Shard(shard_id(5), MORE[:2]),
    ]
    again = start(folder, ROWS + MORE)
    assert [s.shard_id for s in planned(folder, again)] == [shard_id(n) for n in (1, 6, 7, 8, 9)]
    commit_all(folder, again)
    assert verify(folder).ok
    assert len(seen(folder)) == 18
    assert folder.list(PLAN_FOLDER) == ["0000.parquet", "0002.parquet"]


def test_a_start_that_finds_nothing_new_leaves_the_plan_as_it_is(folder):
    run = start(folder)
    commit(folder, run, A)
    assert start(folder) == run


@pytest.mark.parametrize("compacted", [False, True])
def test_a_stragglers_commit_of_a_withdrawn_shard_is_seen_by_nobody(folder, compacted):
    run = start(folder)
    commit(folder, run, B)
    grown = start(folder, ROWS + MORE)
    commit_all(folder, grown)
    before = seen(folder)
    late = commit(folder, run, A)
    if compacted:
        compact(folder, run.fingerprint, max_singles=0)
    assert A.shard_id not in committed_shards(folder, grown)
    assert seen(folder) == before
    report = verify(folder)
    assert report.ok
    assert report.rows == 18
    assert late.file in report.orphans
    assert len(report.orphans) == 2
    result = repair(folder, all_orphans=True, log=quiet)
    assert len(result.moved) == 2
    assert result.rows_to_redo == 0
    assert verify(folder).orphans == ()
    assert seen(folder) == before
    assert start(folder, ROWS + MORE) == grown


def test_a_young_commit_of_a_withdrawn_shard_stays_as_other_orphans_do(folder):
    run = start(folder)
    start(folder, ROWS[:8])
    late = commit(folder, run, A)
    assert repair(folder, log=quiet).moved == ()
    assert set(verify(folder).orphans) == {late.file, manifest_name(A.shard_id)}


def test_an_older_copy_of_the_record_takes_no_shard_for_another_one(folder):
    commit_all(folder, start(folder, ROWS[:8]))
    older = folder.read_bytes(RUN_FILE)
    commit_all(folder, start(folder, ROWS))
    folder.write_bytes(RUN_FILE, older)
    changed = [*ROWS[:8], *(asked(i, "Who?") for i in ROWS[8:])]
    run = start(folder, changed)
    (new,) = planned(folder, run)[2:]
    assert new == Shard(shard_id(3), ROWS[8:])  # shard 2 has the answers to what was asked before
    commit_rows(folder, run, new, question="Who?")
    assert verify(folder).ok
    found = pa.concat_tables(read_committed(folder)).to_pylist()
    assert {r["row_id"]: r["question"] for r in found} == dict.fromkeys(ROWS[:8], "q?") | dict.fromkeys(
        ROWS[8:], "Who?"
    )


def test_changed_rows_are_refused_with_file_row_field_and_both_values(folder):
    run = finished(folder)
    changed = [asked(i, "Who?" if i in ROWS[2:9] else "q?", source_row=n) for n, i in enumerate(ROWS, 1)]
    with pytest.raises(DataError) as refused:
        start(folder, changed)
    message = str(refused.value)
    assert f"7 rows that {folder} has answers to ask something else now" in message
    assert """d.jsonl, row 3 (id qa/test/2), field 'question': 'q?' -> 'Who?'""" in message
    assert "and 2 more" in message
    assert message.count("d.jsonl, row") == 5
    assert "--replace-changed" in message
    assert load_run(folder) == run
    assert folder.list(PLAN_FOLDER) == ["0000.parquet"]


def test_a_row_that_has_a_fault_now_is_refused_by_the_fault(folder):
    finished(folder)
    bad = asked(ROWS[0], "", error="d.jsonl, row 1, field 'question': is empty")
    with pytest.raises(DataError, match=r"(?s)1 rows .*has a fault now: .* is empty"):
        start(folder, [bad, *ROWS[1:]])


def test_a_changed_row_of_several_methods_is_told_once(folder):
    finished(folder)
    finished(folder, methods=("m", "n"))
    with pytest.raises(DataError, match="1 rows that") as refused:
        start(folder, [asked(ROWS[0], "Who?"), *ROWS[1:]], methods=("m", "n"))
    assert str(refused.value).count("'q?' -> 'Who?'") == 1


def test_changed_rows_are_replaced_and_replaced_again(folder):
    finished(folder, methods=("m", "n"))
    for text in ("Who?", "Where?"):
        rows = [asked(ROWS[1], text), asked(ROWS[5], text), *(i for i in ROWS if i not in (ROWS[1], ROWS[5]))]
        run = start(folder, rows, methods=("m", "n"), replace_changed=True)
        (new,) = planned(folder, run)[-1:]
        assert (new.row_ids, new.methods) == ((ROWS[1], ROWS[5]), ("m", "n"))
        assert run.plan[-1].replaced == 2
        assert set(seen(folder)) == keys("mn", set(ROWS) - {ROWS[1], ROWS[5]})
        commit_rows(folder, run, new, question=text)
        assert start(folder, rows, methods=("m", "n")) == run
        found = pa.concat_tables(read_committed(folder)).to_pylist()
        assert len(found) == 24
        assert {r["row_id"] for r in found if r["question"] == text} == {ROWS[1], ROWS[5]}
        assert verify(folder).ok


def test_a_replacement_hides_the_answers_of_all_methods_also_of_those_not_asked_for(folder):
    finished(folder, methods=("m", "n"))
    rows = [asked(ROWS[0], "Who?"), *ROWS[1:]]
    run = start(folder, rows, methods=("m",), replace_changed=True)
    commit_rows(folder, run, planned(folder, run)[-1], question="Who?")
    assert set(seen(folder, everything=True)) == keys("mn", ROWS[1:]) | {("m", ROWS[0])}
    run = start(folder, rows, methods=("m", "n"))
    assert [(s.methods, s.row_ids) for s in planned(folder, run)[4:]] == [(("n",), ROWS[:1])]
    commit_rows(folder, run, planned(folder, run)[-1], question="Who?")
    assert set(seen(folder)) == keys("mn", ROWS)
    assert verify(folder).ok


def test_a_replacement_that_was_withdrawn_replaces_nothing(folder):
    finished(folder)
    # two rows are to be replaced, in a shard each; one of them is committed
    rows = [asked(ROWS[0], "Who?"), asked(ROWS[1], "Who?"), *ROWS[2:]]
    run = start(folder, rows, replace_changed=True, shard_rows=1)
    commit_rows(folder, run, planned(folder, run)[3], question="Who?")
    rows[1] = ROWS[1]
    run = start(folder, rows)
    assert commit_all(folder, run) == []
    assert set(seen(folder)) == keys("m", ROWS)
    assert len(seen(folder)) == 12
    assert verify(folder).ok


def test_a_mended_row_replaces_its_error_unasked(folder):
    bad = asked(ROWS[1], "", error=ERROR["error"])
    run = start(folder, [ROWS[0], bad])
    rows = [row(ROWS[0], shard_id(0)), row(ROWS[1], shard_id(0), question="", **ERROR)]
    shard = Shard(shard_id(0), ROWS[:2])
    commit(folder, run, shard, table=table(shard, rows=rows))
    assert start(folder, [ROWS[0], bad]) == run
    run = start(folder, ROWS[:2])
    assert planned(folder, run)[1:] == [Shard(shard_id(1), ROWS[1:2])]
    commit_all(folder, run)
    assert [r["error"] for found in read_committed(folder) for r in found.to_pylist()] == ["", ""]
    assert verify(folder).ok


def test_more_methods_than_a_table_can_have_are_refused(folder):
    names = tuple(f"m{i}" for i in range(MAX_METHODS + 1))
    with pytest.raises(OutputError, match="63 methods, of at most 62 in a table"):
        start(folder, methods=names)
    assert start(folder, ROWS[:1], methods=names[:MAX_METHODS]).planned_rows == MAX_METHODS


def growing(folder):
    """A run with a commit, and a start that adds, replaces, withdraws and leaves out."""
    run = start(folder)
    commit(folder, run, A)
    commit(folder, run, B)
    return {
        "rows": [asked(ROWS[0], "Who?"), *ROWS[2:], *MORE],
        "methods": ("m", "n"),
        "replace_changed": True,
    }


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_write_of_a_start_is_mended_by_the_same_start(tmp_path, after):
    whole = OutputFolder(str(tmp_path / "whole"))
    changes = growing(whole)
    expected = planned(whole, start(whole, **changes))
    write = OutputFolder.write_bytes
    crashes = 0
    while True:
        folder = OutputFolder(str(tmp_path / f"crash{crashes}"))
        changes = growing(folder)
        left = [crashes]

        def crash(self, name, data, left=left):
            if not left[0] and not after:
                raise OSError("the driver died")
            write(self, name, data)
            if not left[0]:
                raise OSError("the driver died")
            left[0] -= 1

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(OutputFolder, "write_bytes", crash)
            try:
                start(folder, **changes)
                break
            except OutputError as e:
                died = str(e)
        assert "the driver died" in died
        assert verify(folder).damaged == 0
        run = start(folder, **changes)
        assert planned(folder, run) == expected
        assert verify(folder).orphans == ()
        commit_all(folder, run)
        assert verify(folder).ok
        crashes += 1
    assert crashes == 4  # two parts, the rows that are left out, the record
