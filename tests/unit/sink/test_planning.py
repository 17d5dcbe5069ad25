"""A large data set is planned in pieces, by many processes: the plan is that of one process."""

import json
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.config.fault_injection import VARIABLE
from flexray.data import scan
from flexray.data.plan_rows import PLAN_SCHEMA
from flexray.errors import DataError
from flexray.sink import OutputFolder, clear_scratch, open_run, plan_run, read_committed, verify
from flexray.sink.plan import compare, staging, writer
from flexray.sink.plan.files import read_part
from flexray.sink.plan.scratch import FolderScratch
from flexray.sink.plan.staging import stage
from flexray.sink.plan.writer import cut_files
from tests.unit.data.conftest import data_config, record, write
from tests.unit.sink.builders import PARTS, commit, planned

PARTS = PARTS | {"data": {"name": "d", "split": "test"}}


@pytest.fixture
def small_pieces(monkeypatch):
    """Each file is read by itself, in pieces of two rows; there are several buckets."""
    monkeypatch.setattr(staging, "UNIT_BYTES", 1)
    monkeypatch.setattr(staging, "IN_PROCESS_BYTES", 0)
    monkeypatch.setattr(staging, "PIECE_ROWS", 2)
    monkeypatch.setattr(staging, "BUCKET_BYTES", 300)
    monkeypatch.setattr(writer, "FILE_ROWS", 6)
    monkeypatch.setattr(writer, "FILE_PIECES", 2)


def start(folder, config, distribute=None, *, methods=("m",), sources="s", shard_rows=3, **options):
    """Plan what the sources have."""
    settings = {"data": {"shard_rows": shard_rows}}
    run = open_run(folder, parts=PARTS, config=settings)
    committed = [shard.shard_id for shard in planned(folder, run)][:2] if run else ()
    return plan_run(
        folder,
        run,
        stage(config, folder, run, distribute),
        parts=PARTS,
        methods=methods,
        config=settings,
        provenance={},
        sources=sources,
        committed=committed,
        **options,
    )


def rows_of(folder, run):
    """The planned questions, in order of their shards."""
    tables = [read_part(folder, part, PLAN_SCHEMA.names) for part in run.plan]
    return pa.concat_tables([PLAN_SCHEMA.empty_table(), *tables]).combine_chunks()


REPEATING = [
    [record(1), record(2), record(3, id="q1#2")],
    [record(9, id="q1"), record(2), "no object", record(4)],
    [record(1), record(8, id="q1#2"), record(5, id="")],
    ["no object", record(7, paraphrases=[]), record(1)],
]


@pytest.mark.parametrize("id_field", ["id", None])
def test_ids_that_several_files_have_are_named_as_by_a_scan(tmp_path, folder, small_pieces, id_field):
    for number, rows in enumerate(REPEATING):
        write(tmp_path / f"{number}.jsonl", rows)
    config = data_config(tmp_path / "*.jsonl", fields={"id": id_field})
    run = start(folder, config, map)
    assert len(folder.list("_scratch")) == 1
    expected = scan(config).combine_chunks()
    assert rows_of(folder, run).equals(expected)
    assert sum("has the same" in error for error in expected["error"].to_pylist()) >= 3
    assert [sum(part.shards.values()) for part in run.plan] == [3, 6, 3, 1]


def grown(tmp_path, name, distribute):
    """A table that grows by rows and methods, replaces, withdraws and leaves out."""
    folder = OutputFolder(str(tmp_path / name))
    folder.prepare()
    first = write(tmp_path / "first.jsonl", [record(i) for i in range(12)])
    run = start(folder, data_config(first), distribute, methods=("m", "n"))
    for shard in planned(folder, run)[:2]:
        commit(folder, run, shard)
    rows = [record(0, question="Who?"), *(record(i) for i in range(2, 9)), record(3), record(99)]
    for number in range(3):
        write(tmp_path / f"then-{number}.jsonl", rows[number::3])
    then = data_config(tmp_path / "then-*.jsonl")
    with pytest.raises(DataError) as refused:
        start(folder, then, distribute, methods=("m", "o"), sources="t")
    run = start(folder, then, distribute, methods=("m", "o"), sources="t", replace_changed=True)
    files = {name: folder.read_bytes(f"plan/{name}") for name in folder.list("plan")}
    return str(refused.value).replace(name, "OUT"), run.plan, run.selection, run.next_shard, files


def test_a_table_grows_alike_in_one_process_and_in_many(tmp_path, monkeypatch, small_pieces):
    alone = grown(tmp_path, "alone", None)
    with ProcessPoolExecutor(2) as pool, monkeypatch.context() as patch:
        patch.setattr(FolderScratch, "get", get_by_others_only(os.getpid()))
        many = grown(tmp_path, "many", pool.map)
    assert alone == many
    refused, plan, selection, *_ = alone
    assert "'What is 0?' -> 'Who?'" in refused
    assert selection.left_out.rows == 1
    assert sum(part.replaced for part in plan) == 1


def test_so_many_rows_are_drawn_alike_in_one_process_and_in_many(tmp_path, folder, small_pieces):
    for number in range(3):
        write(tmp_path / f"{number}.jsonl", [record(10 * number + i) for i in range(10)])
    config = data_config(f"{tmp_path}/?.jsonl", sample_rows=7)
    with ProcessPoolExecutor(2) as pool:
        run = start(folder, config, pool.map)
    asked = rows_of(folder, run)
    assert sorted(asked["row_id"].to_pylist()) == sorted(scan(config)["row_id"].to_pylist())
    assert len(asked) == 7
    kept = {row_id for shard in planned(folder, run)[:2] for row_id in shard.row_ids}
    for shard in planned(folder, run)[:2]:
        commit(folder, run, shard)
    write(tmp_path / "3.jsonl", [record(30 + i) for i in range(30)])
    run = start(folder, config)
    wanted = set(scan(config)["row_id"].to_pylist())
    seen = [row_id for table in read_committed(folder) for row_id in table["row_id"].to_pylist()]
    assert (len(seen), set(seen)) == (len(kept & wanted), kept & wanted)
    assert set(rows_of(folder, run)["row_id"].to_pylist()) == kept | wanted
    assert len(wanted) == 7


def get_by_others_only(driver):
    """A `FolderScratch.get` that gives the driver at most the piece of a row that is shown."""
    get, given = FolderScratch.get, []

    def counted(self, slices):
        tables = get(self, slices)
        if os.getpid() == driver:
            given.extend(table.num_rows for table in tables)
            assert sum(given) <= 2 * compare.SHOWN_CHANGES, "the driver holds no rows"
        return tables

    return counted


KILLED = """
import sys
from flexray.config import parse_config
from flexray.sink import OutputFolder
from flexray.sink.plan import staging
staging.IN_PROCESS_BYTES, staging.UNIT_BYTES = 0, 1
data = {"name": "d", "files": sys.argv[2]}
config = parse_config({"output": "o", "model": {"path": "m"}, "data": data}, source="")
staging.stage(config.data, OutputFolder(sys.argv[1]), None, map)
"""


def test_a_start_that_is_killed_while_it_reads_leaves_nothing_wrong(tmp_path, folder):
    for number in range(4):
        write(tmp_path / f"{number}.jsonl", [record(4 * number + i) for i in range(4)])
    fault = {"point": "plan.scratch", "action": "kill", "skip": 3, "ledger": str(tmp_path / "ledger")}
    died = subprocess.run(
        [sys.executable, "-c", KILLED, folder.url, str(tmp_path / "*.jsonl")],
        env=os.environ | {VARIABLE: json.dumps([fault])},
        check=False,
    )
    assert died.returncode == -9
    (left,) = folder.list("_scratch")
    assert len(folder.list(f"_scratch/{left}")) == 4
    config = data_config(tmp_path / "*.jsonl")
    clear_scratch(folder)
    run = start(folder, config)
    assert rows_of(folder, run).equals(scan(config).combine_chunks())
    assert sorted(folder.list()) == ["_run.json", "plan"]
    report = verify(folder)
    assert (report.orphans, report.foreign, report.damaged) == ((), (), 0)


def test_of_bad_files_the_first_is_told_wherever_they_are_read(tmp_path, folder, small_pieces):
    write(tmp_path / "a.jsonl", [record(1)])
    write(tmp_path / "b.jsonl", [{"other": 1}])
    (tmp_path / "c.parquet").write_bytes(b"no Parquet")
    config = data_config(tmp_path / "*")
    with pytest.raises(DataError) as expected:
        scan(config)
    for distribute in (None, map):
        with pytest.raises(DataError) as told:
            stage(config, folder, None, distribute)
        assert str(told.value) == str(expected.value)


@pytest.mark.parametrize("only_here", ["q.zip", "asked.txt", "more.jsonl"])
def test_what_the_drivers_machine_alone_has_is_read_there(tmp_path, folder, small_pieces, only_here):
    for number in range(2):
        write(tmp_path / f"{number}.jsonl", [record(number)])
    with zipfile.ZipFile(tmp_path / "q.zip", "w") as zipped:
        for number in range(2):
            zipped.write(tmp_path / f"{number}.jsonl", f"{number}.jsonl")
    (tmp_path / "asked.txt").write_text("q0\nq1\n")
    more = write(tmp_path / "more.jsonl", [{"id": f"q{i}", "paraphrases": ["So?"]} for i in range(2)])
    config = data_config(tmp_path / "q.zip", ids=str(tmp_path / "asked.txt"), paraphrase_files=str(more))

    def elsewhere(call, units):
        (tmp_path / only_here).rename(tmp_path / "away")
        found = list(map(call, units))
        (tmp_path / "away").rename(tmp_path / only_here)
        return found

    staged = stage(config, folder, None, elsewhere)
    assert pa.concat_tables(staged.tables())["source_id"].to_pylist() == ["q0", "q1"]


@given(
    counts=st.dictionaries(st.integers(0, 30), st.integers(1, 40), max_size=20),
    shard_rows=st.integers(1, 9),
)
def test_files_are_whole_shards_of_all_rows_in_order(counts, shard_rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "FILE_ROWS", 20)
        patch.setattr(writer, "FILE_PIECES", 3)
        files = list(cut_files(dict(sorted(counts.items())), shard_rows))
    taken = [(take.piece, row) for file in files for take in file for row in range(take.start, take.stop)]
    assert taken == [(piece, row) for piece in sorted(counts) for row in range(counts[piece])]
    sizes = [sum(map(len, file)) for file in files]
    assert all(size % shard_rows == 0 and size <= 20 for size in sizes[:-1])
    assert all(len(file) <= 3 + shard_rows for file in files)
