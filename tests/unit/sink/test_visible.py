"""What readers see of a table: what its last recipe names, or all, and never what was replaced."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import flexray
from flexray.sink import DamageError, OutputFolder, committed_shards, load_run, read_committed
from flexray.sink.read.visible import seen_manifests, view
from tests.unit.sink.builders import (
    ERROR,
    ROWS,
    commit,
    commit_all,
    finished,
    planned,
    question,
    row,
    start,
    table,
)


def keys(tables):
    return [(r["method"], r["row_id"], r["question"]) for t in tables for r in t.to_pylist()]


@pytest.fixture
def grown(folder):
    """Twelve rows by m and n; then row 1 was replaced, and rows 8 and on, and n, are not named any more."""
    finished(folder, methods=("n", "m"))
    run = start(folder, [ROWS[0], question(ROWS[1], question="Who?"), *ROWS[2:8]], replace_changed=True)
    (new,) = planned(folder, run)[-1:]
    rows = [row(ROWS[1], new.shard_id, question="Who?")]
    commit(folder, run, new, table=table(new, rows=rows))
    return folder


def expected(rows, methods):
    return {(m, i, "q?") for m in methods for i in rows} - {(m, ROWS[1], "q?") for m in methods}


NEW = ("m", ROWS[1], "Who?")
CHOICES = [
    ({}, expected(ROWS[:8], "m") | {NEW}),
    ({"everything": True}, expected(ROWS, "mn") | {NEW}),
    ({"methods": ("n",)}, expected(ROWS[:8], "n")),
    ({"methods": ("n",), "everything": True}, expected(ROWS, "n")),
    ({"methods": ("n", "m")}, expected(ROWS[:8], "mn") | {NEW}),
]


@pytest.mark.parametrize(("choice", "rows"), CHOICES)
def test_what_is_seen_is_what_is_named_and_nothing_that_was_replaced(grown, choice, rows):
    found = keys(read_committed(grown, **choice))
    assert len(found) == len(rows)
    assert set(found) == rows


@pytest.mark.parametrize(("choice", "rows"), CHOICES)
def test_the_filter_of_a_data_set_leaves_what_is_seen_shard_by_shard(grown, choice, rows):
    run = load_run(grown)
    seen = view(grown, run, **choice)
    manifests = [m for m in committed_shards(grown, run).values() if seen.has(m)]
    filesystem, files = grown.arrow_files(m.file for m in manifests)
    data = pa.dataset.dataset(files, format="parquet", filesystem=filesystem)
    filtered = data.to_table(filter=seen.expression(manifests))
    assert filtered.equals(pa.concat_tables(read_committed(grown, **choice)).cast(filtered.schema))
    assert set(keys([filtered])) == rows


def test_shards_of_which_nothing_is_seen_are_not_read(grown):
    run = load_run(grown)
    unseen = committed_shards(grown, run)[planned(grown, run)[2].shard_id]
    grown.remove(unseen.file)
    assert set(keys(read_committed(grown))) == CHOICES[0][1]
    assert not view(grown, run).has(unseen)


def test_a_table_of_which_all_is_seen_needs_neither_a_filter_nor_the_plan(folder):
    run = finished(folder)
    folder.remove("plan/0000.parquet")
    seen = view(folder, run)
    assert seen.expression(list(committed_shards(folder, run).values())) is None
    assert len(keys(read_committed(folder))) == 12


def test_rows_and_methods_that_are_not_named_are_not_read_or_evaluated_unasked(grown):
    assert flexray.read(grown.url).to_arrow().num_rows == 8
    (summary,) = flexray.evaluate(grown.url).folders
    assert (summary.committed_rows, summary.planned_rows) == (8, 8)
    everything = flexray.read(grown.url, everything=True)
    assert everything.to_arrow().num_rows == 23
    table = everything.to_dataset().to_table()
    assert pc.sum(pc.equal(table["row_id"], ROWS[1])).as_py() == 1
    assert [m.rows for m in flexray.evaluate(grown.url).methods] == [8]
    assert {m.method: m.rows for m in flexray.evaluate(grown.url, everything=True).methods} == {
        "n": 11,
        "m": 12,
    }


def test_of_a_table_that_is_not_finished_what_is_committed_is_seen(folder):
    run = start(folder)
    assert list(read_committed(folder)) == []
    shard = planned(folder, run)[1]
    commit(folder, run, shard)
    assert list(read_committed(folder)) == [table(shard)]
    commit_all(folder, run)
    assert len(keys(read_committed(folder))) == 12


def test_a_reader_beside_a_start_that_grows_the_table_reads_its_new_record(grown, monkeypatch):
    read = OutputFolder.read_bytes

    def overtaken(self, name):
        if name.endswith("-left-out.parquet"):
            monkeypatch.setattr(OutputFolder, "read_bytes", read)
            start(grown, [ROWS[0], question(ROWS[1], question="Who?"), *ROWS[2:6]])
        return read(self, name)

    monkeypatch.setattr(OutputFolder, "read_bytes", overtaken)
    assert set(keys(read_committed(grown))) == expected(ROWS[:6], "m") | {NEW}


def test_a_plan_file_that_is_lost_is_told_to_readers_who_need_it(grown):
    grown.remove("plan/0000.parquet")
    with pytest.raises(DamageError, match=r"plan/0000.parquet: is missing. Run again"):
        list(read_committed(grown))


def counted(manifests):
    stats = [manifest.accounting for manifest in manifests.values()]
    return [(s.rows, s.errors, s.fallbacks, s.rows_by_method, s.backend_used) for s in stats]


@pytest.mark.parametrize(("choice", "rows"), CHOICES)
def test_the_numbers_of_shards_are_those_of_their_seen_rows(grown, choice, rows):
    run = load_run(grown)
    seen, manifests = view(grown, run, **choice), committed_shards(grown, run)
    tables = list(read_committed(grown, **choice))
    for manifest in manifests.values():
        grown.remove(manifest.file)  # all of their rows were answered by one backend: no file is needed
    found = seen_manifests(grown, seen, manifests)
    assert counted(found) == [(len(t), 0, 0, counts(t, "method"), counts(t, "backend_used")) for t in tables]
    assert sum(manifest.rows for manifest in found.values()) == len(rows)


def counts(rows, column):
    return {item["values"]: item["counts"] for item in rows[column].value_counts().to_pylist()}


def test_errors_that_are_not_seen_do_not_count_and_those_that_are_do(folder):
    run = start(folder)
    first, second, third = planned(folder, run)
    for shard in (first, second):
        rows = [row(i, shard.shard_id, **(ERROR if i == shard.row_ids[1] else {})) for i in shard.row_ids]
        commit(folder, run, shard, table=table(shard, rows=rows))
    commit(folder, run, third)
    run = start(folder, [r for r in ROWS if r not in (first.row_ids[1], second.row_ids[0], third.row_ids[0])])
    found = seen_manifests(folder, view(folder, run), committed_shards(folder, run))
    assert [(m.rows, m.accounting.errors) for m in found.values()] == [(3, 0), (3, 1), (3, 0)]
