import json
import math
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from flexray.errors import OutputError
from flexray.sink import DamageError, OutputFolder, committed_shards, read_committed, verify
from flexray.sink.commit.shard import CommitError
from flexray.sink.records import DATA_FOLDER, MANIFEST_FOLDER, manifest_name
from tests.unit.sink.builders import ERROR, A, B, C, commit, edit_json, finished, row, start, table


def nothing_is_committed(folder):
    return folder.list(MANIFEST_FOLDER) == [] and folder.list(DATA_FOLDER) == []


def test_committed_rows_are_read_back_as_they_were(folder):
    run = start(folder)
    commit(folder, run, B)
    commit(folder, run, A)
    assert list(read_committed(folder)) == [table(A), table(B)]


def test_the_manifest_accounts_for_the_rows(folder):
    rows = [
        row(A.row_ids[0], A.shard_id),
        row(
            A.row_ids[1],
            A.shard_id,
            backend_used="sdpa",
            fallback_reason="oom",
            correct=False,
            finish_reason="eos",
        ),
        row(A.row_ids[2], A.shard_id, answers=None, correct=None),
        row(A.row_ids[3], A.shard_id, **ERROR),
    ]
    manifest = commit(folder, run := start(folder), A, table=table(A, rows=rows))
    assert manifest.accounting.model_dump() == {
        "rows": 4,
        "answered": 3,
        "errors": 1,
        "rows_by_method": {"m": 4},
        "backend_requested": {"flex": 4},
        "backend_used": {"": 1, "flex": 2, "sdpa": 1},
        "fallback_reason": {"": 3, "oom": 1},
        "finish_reason": {"eos": 1, "error": 1, "newline": 2},
        "scored": 2,
        "correct": 1,
        "prompt_tokens": 40,
        "generated_tokens": 9,
    }
    assert manifest.engine_stats == {"graphs": 2}
    assert manifest.seconds == 1.5
    assert committed_shards(folder, run) == {A.shard_id: manifest}
    assert verify(folder).unaccounted == 0


def test_a_committed_shard_is_not_written_again(folder):
    run = start(folder)
    first = commit(folder, run, A)
    assert commit(folder, run, A, seconds=9.0) == first
    assert len(folder.list(DATA_FOLDER)) == 1


def test_a_crash_before_the_manifest_shows_nothing_and_the_shard_can_be_redone(folder, monkeypatch):
    run = start(folder)
    write = OutputFolder.write_bytes

    def crash(self, name, data):
        if name.startswith(MANIFEST_FOLDER):
            raise OSError("the node died")
        write(self, name, data)

    monkeypatch.setattr(OutputFolder, "write_bytes", crash)
    with pytest.raises(OSError, match="the node died"):
        commit(folder, run, A)
    monkeypatch.undo()
    assert len(folder.list(DATA_FOLDER)) == 1
    assert committed_shards(folder, run) == {}
    assert list(read_committed(folder)) == []
    commit(folder, run, A)
    assert list(read_committed(folder)) == [table(A)]


def test_of_two_writers_of_one_shard_the_slower_finds_the_commit_of_the_faster(folder, monkeypatch):
    run = start(folder)
    write = OutputFolder.write_bytes
    faster = []

    def overtaken(self, name, data):
        write(self, name, data)
        if name.startswith(DATA_FOLDER) and not faster:
            faster.append(None)
            faster[0] = commit(folder, run, A)

    monkeypatch.setattr(OutputFolder, "write_bytes", overtaken)
    slower = commit(folder, run, A)
    assert slower == faster[0]
    assert len(folder.list(DATA_FOLDER)) == 2
    assert list(read_committed(folder)) == [table(A)]


def test_of_two_writers_at_the_very_same_time_one_is_visible(folder, monkeypatch):
    run = start(folder)
    write = OutputFolder.write_bytes
    other = []

    def at_once(self, name, data):
        if name.startswith(MANIFEST_FOLDER) and not other:
            other.append(None)
            other[0] = commit(folder, run, A)
        write(self, name, data)

    monkeypatch.setattr(OutputFolder, "write_bytes", at_once)
    mine = commit(folder, run, A)
    assert mine != other[0]
    assert committed_shards(folder, run) == {A.shard_id: mine}
    assert list(read_committed(folder)) == [table(A)]


def test_many_writers_of_one_shard_leave_one_commit(folder):
    run = start(folder)
    with ThreadPoolExecutor(8) as pool:
        manifests = list(pool.map(lambda _: commit(folder, run, A), range(8)))
    (visible,) = committed_shards(folder, run).values()
    assert visible in manifests
    assert list(read_committed(folder)) == [table(A)]
    assert len(verify(folder).orphans) == len(folder.list(DATA_FOLDER)) - 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"shard_id": B.shard_id}, "belong to another shard"),
        ({"finish_reason": "tired"}, "unknown finish_reason"),
        ({"finish_reason": "error"}, "an error but another finish_reason"),
        ({"error": "bad"}, "an error but another finish_reason"),
        ({"backend_used": ""}, "name no backend"),
        ({"backend_used": "eager"}, "fell back to another backend without a reason"),
        (ERROR | {"correct": False}, "are scored, but are error rows"),
        ({"answers": None}, "are scored, but are error rows or have no answers"),
    ],
)
def test_a_row_that_breaks_the_rules_is_not_committed(folder, changes, problem):
    rows = [row(row_id, A.shard_id) for row_id in A.row_ids]
    rows[2] |= changes
    with pytest.raises(CommitError, match=f"shard {A.shard_id}: 1 row.* {problem}"):
        commit(folder, start(folder), A, table=table(A, rows=rows))
    assert nothing_is_committed(folder)


def test_a_null_where_none_may_be_is_not_committed(folder):
    rows = [row(row_id, A.shard_id) for row_id in A.row_ids]
    rows[0]["error"] = None
    with pytest.raises(CommitError, match="null in error"):
        commit(folder, start(folder), A, table=table(A, rows=rows))
    assert nothing_is_committed(folder)


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2, 3], [0, 1, 2, 2], [0, 1, 2, 3, 3], []])
def test_rows_that_are_not_the_expected_ones_in_order_are_not_committed(folder, order):
    rows = [row(A.row_ids[i], A.shard_id) for i in order]
    with pytest.raises(
        CommitError, match=r"not the 4 expected rows in .* order; the first difference is at row \d"
    ):
        commit(folder, start(folder), A, table=table(A, rows=rows))
    assert nothing_is_committed(folder)


@pytest.mark.parametrize(
    ("drift", "difference"),
    [
        (lambda t: t.drop_columns(["error"]), r'error: "string not null" -> \(absent\)'),
        (lambda t: t.append_column("extra", pa.array([1] * 4)), r'extra: \(absent\) -> "int64"'),
        (
            lambda t: t.set_column(0, "row_id", t["row_id"].cast(pa.large_string())),
            'row_id: "string not null" -> "large_string"',
        ),
        (lambda t: t.select(list(reversed(t.column_names))), "the order of columns differs"),
    ],
)
def test_a_table_of_another_schema_is_not_committed(folder, drift, difference):
    with pytest.raises(CommitError, match=f"schema is not that of output rows: {difference}"):
        commit(folder, start(folder), A, table=drift(table(A)))
    assert nothing_is_committed(folder)


@pytest.mark.parametrize("stats", [{"mean": math.nan}, {"x": object()}])
def test_stats_that_are_no_json_are_not_committed(folder, stats):
    with pytest.raises(CommitError, match="engine_stats"):
        commit(folder, start(folder), A, engine_stats=stats)
    assert nothing_is_committed(folder)


def test_stats_with_number_keys_and_fractions_survive_the_round_trip(folder):
    run = start(folder)
    manifest = commit(folder, run, A, engine_stats={"buckets": {16: 1, 8: 2}, "s": 0.1 + 0.2}, seconds=1 / 3)
    assert committed_shards(folder, run) == {A.shard_id: manifest}


def test_a_committed_shard_with_other_rows_is_not_taken_for_this_one(folder):
    run = start(folder)
    commit(folder, run, A)
    with pytest.raises(CommitError, match="already committed, but with other rows"):
        commit(folder, run, A, expected_row_ids=A.row_ids[:2])


def test_an_edited_manifest_is_an_error_not_an_uncommitted_shard(folder):
    run = finished(folder)
    edit_json(folder, manifest_name(B.shard_id), rows=3)
    with pytest.raises(DamageError, match=rf"_manifests/{B.shard_id}.json: was changed .*`flexray verify`"):
        committed_shards(folder, run)
    with pytest.raises(DamageError):
        commit(folder, run, B)
    with pytest.raises(DamageError):
        list(read_committed(folder))


def test_a_manifest_of_another_run_is_an_error(folder):
    run = finished(folder)
    with pytest.raises(OutputError, match=rf"{A.shard_id}.json: belongs to another run .*`flexray verify`"):
        committed_shards(folder, run.model_copy(update={"fingerprint": "0" * 64}))
    with pytest.raises(OutputError, match="belongs to another run"):
        commit(folder, run, A, fingerprint="0" * 64)


def test_reading_checks_each_file(folder):
    finished(folder)
    name = json.loads(folder.read_bytes(manifest_name(B.shard_id)))["file"]
    folder.write_bytes(name, folder.read_bytes(name)[:-1])
    tables = read_committed(folder)
    assert next(tables) == table(A)
    with pytest.raises(DamageError, match=f"{name}: has .* bytes"):
        next(tables)


def test_unfinished_writes_among_the_manifests_are_ignored(folder):
    run = finished(folder)
    folder.write_bytes(f"{MANIFEST_FOLDER}/.d.json.00.tmp", b"{")
    assert list(committed_shards(folder, run)) == [A.shard_id, B.shard_id, C.shard_id]
