"""A record or plan files that are lost are made again from each other and from the commits."""

import pyarrow.parquet as pq
import pytest

from flexray.sink import committed_shards, load_run, read_committed, verify
from flexray.sink.records import PLAN_FOLDER, RUN_FILE
from tests.unit.sink.builders import (
    PLAN_FILE,
    ROWS,
    A,
    B,
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

MORE = tuple(f"qa/test/{i}" for i in range(12, 18))
CHANGED = [ROWS[0], question(ROWS[1], question="Who?"), *ROWS[2:], *MORE]


def commit_changed(folder, run):
    """Commit what is planned, of rows that ask what CHANGED asks."""
    done = committed_shards(folder, run)
    for shard in planned(folder, run):
        if shard.shard_id not in done:
            rows = [
                row(i, shard.shard_id, method=m, question="Who?" if i == ROWS[1] else "q?")
                for m in shard.methods
                for i in shard.row_ids
            ]
            commit(folder, run, shard, table=table(shard, rows=rows))


@pytest.fixture
def grown(folder):
    """Withdrawn shards, a replaced row, two methods, and some shards that are not committed."""
    run = start(folder)
    commit(folder, run, A)
    commit(folder, run, B)
    run = start(folder, CHANGED, replace_changed=True)
    commit_changed(folder, run)
    run = start(folder, CHANGED, methods=("m", "n"))
    shard = planned(folder, run)[-2]
    rows = [row(i, shard.shard_id, method="n") for i in shard.row_ids]
    commit(folder, run, shard, table=table(shard, rows=rows))
    return folder


def rows_of(folder):
    found = [
        (r["method"], r["row_id"], r["question"])
        for t in read_committed(folder, everything=True)
        for r in t.to_pylist()
    ]
    assert len(set(found)) == len(found)
    return set(found)


def lose_record(folder):
    folder.remove(RUN_FILE)


def lose_plan(folder):
    for name in folder.list(PLAN_FOLDER):
        folder.remove(f"{PLAN_FOLDER}/{name}")


def lose_first_plan_file(folder):
    folder.remove(PLAN_FILE)


def cut_plan(folder):
    for name in folder.list(PLAN_FOLDER):
        full = f"{PLAN_FOLDER}/{name}"
        folder.write_bytes(full, folder.read_bytes(full)[:-1])


def lose_both(folder):
    lose_record(folder)
    lose_plan(folder)


def lose_record_and_first_plan_file(folder):
    lose_record(folder)
    lose_first_plan_file(folder)


def lose_record_and_flip_plan(folder):
    lose_record(folder)
    data = bytearray(folder.read_bytes(PLAN_FILE))
    data[len(data) // 3] ^= 1
    folder.write_bytes(PLAN_FILE, bytes(data))


LOSSES = [
    lose_record,
    lose_plan,
    lose_first_plan_file,
    cut_plan,
    lose_both,
    lose_record_and_first_plan_file,
    lose_record_and_flip_plan,
]


@pytest.mark.parametrize("lose", LOSSES)
def test_what_is_committed_is_known_again_and_only_the_rest_is_planned(grown, lose):
    before, run = rows_of(grown), load_run(grown)
    todo = {
        (s.methods, i)
        for s in planned(grown, run)
        if s.shard_id not in committed_shards(grown, run)
        for i in s.row_ids
    }
    lose(grown)
    again = start(grown, CHANGED, methods=("m", "n"))
    assert rows_of(grown) == before
    assert {
        (s.methods, i)
        for s in planned(grown, again)
        if s.shard_id not in committed_shards(grown, again)
        for i in s.row_ids
    } == todo
    assert again.fingerprint == run.fingerprint
    commit_changed(grown, again)
    assert verify(grown).ok
    assert verify(grown).orphans == ()
    assert len(rows_of(grown)) == 36
    assert start(grown, CHANGED, methods=("m", "n")) == again


@pytest.mark.parametrize("lose", [lose_record, lose_both])
def test_a_straggler_s_commit_is_not_taken_for_one_when_the_record_is_lost(folder, lose):
    run = start(folder)
    commit(folder, run, B)
    grown = finished(folder, ROWS + MORE)
    late = commit(folder, run, A)
    before = rows_of(folder)
    lose(folder)
    again = start(folder, ROWS + MORE)
    assert A.shard_id not in committed_shards(folder, again)
    assert again.next_shard == grown.next_shard
    assert rows_of(folder) == before
    report = verify(folder)
    assert report.ok
    assert late.file in report.orphans


def test_numbers_of_shards_that_wrote_data_are_not_used_again(folder):
    run = start(folder)
    commit(folder, run, A)
    folder.write_bytes(f"data/{shard_id(7)}-{'0' * 32}.parquet", b"of a writer that was killed")
    lose_both(folder)
    assert [s.shard_id for s in planned(folder, start(folder))] == [A.shard_id, shard_id(8), shard_id(9)]


def test_a_plan_file_is_written_again_with_the_same_questions(folder):
    rows = [question(i, relation="P1", confidences=(0.5, 0.25), num_manual=1, answers=None) for i in ROWS]
    run = start(folder, rows)
    for shard in planned(folder, run):
        same = {"relation": "P1", "confidences": [0.5, 0.25], "num_manual": 1, "answers": None}
        made = [row(i, shard.shard_id, correct=None, **same) for i in shard.row_ids]
        commit(folder, run, shard, table=table(shard, rows=made))
    before = pq.read_table(folder.where(PLAN_FILE))
    lose_plan(folder)
    again = start(folder, rows)
    assert commit_all(folder, again) == []
    (name,) = folder.list(PLAN_FOLDER)
    assert pq.read_table(folder.where(f"{PLAN_FOLDER}/{name}")).equals(before)


def test_confidences_that_are_answers_are_not_taken_for_those_of_the_question(folder):
    run = start(folder, ROWS[:4], methods=("confidence", "per_prompt"))
    (shard,) = planned(folder, run)
    made = [
        row(i, shard.shard_id, method=m, confidences=[0.5, 1.0] if m == "confidence" else None)
        for m in shard.methods
        for i in shard.row_ids
    ]
    commit(folder, run, shard, table=table(shard, rows=made))
    lose_both(folder)
    assert commit_all(folder, start(folder, ROWS[:4], methods=("confidence", "per_prompt"))) == []


def test_the_order_of_methods_in_a_shard_is_kept(folder):
    run = finished(folder, methods=("n", "m"))
    before = list(read_committed(folder))
    lose_both(folder)
    again = start(folder, methods=("n", "m"))
    assert planned(folder, again) == [Shard(s.shard_id, s.row_ids, ("n", "m")) for s in planned(folder, run)]
    assert list(read_committed(folder)) == before
    assert verify(folder).ok


def test_a_second_loss_is_mended_like_the_first(grown):
    before = rows_of(grown)
    for lose in (lose_first_plan_file, lose_record, lose_both, lose_record, cut_plan, lose_both):
        lose(grown)
        run = start(grown, CHANGED, methods=("m", "n"))
        assert rows_of(grown) == before
    commit_changed(grown, run)
    assert verify(grown).ok
