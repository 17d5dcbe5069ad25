"""DuckDB, pandas, Arrow and exports see the same rows of a table that has grown: those that are committed."""

import duckdb
import pandas
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import flexray
from flexray.errors import OutputError
from flexray.runs.export import export
from flexray.sink import OutputFolder
from tests.unit.sink.builders import ROWS, commit, finished, planned, question, row, start, table

CHOICES = [{}, {"everything": True}, {"methods": ("n",)}, {"methods": ("n", "m"), "everything": True}]


@pytest.fixture
def grown(tmp_path):
    """Twelve rows by n and m; then row 1 was replaced, and rows 8 and on, and n, are not named any more. A
    quote in its path; and an orphan, a data file that was never committed."""
    folder = OutputFolder(str(tmp_path / "night's" / "method=z" / "out"))
    folder.prepare()
    finished(folder, methods=("n", "m"))
    run = start(folder, [ROWS[0], question(ROWS[1], question="Who?"), *ROWS[2:8]], replace_changed=True)
    (new,) = planned(folder, run)[-1:]
    rows = [row(ROWS[1], new.shard_id, question="Who?")]
    commit(folder, run, new, table=table(new, rows=rows))
    data = folder.list("data")[0]
    folder.write_bytes(f"data/{data[:-40]}{'0' * 32}.parquet", folder.read_bytes(f"data/{data}"))
    return folder


def keys(rows):
    return sorted((r["method"], r["row_id"], r["question"]) for r in rows)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_view_of_sql_shows_exactly_the_committed_rows(grown, tmp_path, choice):
    rows = str(tmp_path / "rows.parquet")
    export(grown.url, rows, **choice)
    done = export(grown.url, str(tmp_path / "it's mine.sql"), **choice)
    assert done.files == (str(tmp_path / "it's mine.sql"),)
    with duckdb.connect() as db:
        db.execute((tmp_path / "it's mine.sql").read_text())
        found = db.sql('SELECT * FROM "it\'s mine"').to_arrow_table()
    stored = pa.parquet.read_table(rows)
    assert keys(found.to_pylist()) == keys(stored.to_pylist())
    assert set(found.column_names) == set(stored.column_names)


def test_a_view_of_a_run_without_commits_is_empty(tmp_path):
    folder = OutputFolder(str(tmp_path / "out"))
    folder.prepare()
    start(folder)
    export(folder.url, str(tmp_path / "none.sql"))
    with duckdb.connect() as db:
        db.execute((tmp_path / "none.sql").read_text())
        assert db.sql("SELECT row_id FROM none").fetchall() == []


def test_duckdb_reads_the_data_set_and_the_folder_itself_which_has_more(grown):
    seen = flexray.read(grown.url).to_dataset()
    with duckdb.connect() as db:
        db.register("seen", seen)
        assert db.sql("SELECT count(*) FROM seen").fetchall() == [(8,)]
        assert db.sql("SELECT count(*) FROM seen WHERE question = 'Who?'").fetchall() == [(1,)]
        # replaced rows, those that no recipe names any more, and the orphan
        files = f"{grown.url}/data/*.parquet".replace("'", "''")
        query = f"SELECT count(*) FROM read_parquet('{files}', hive_partitioning = false)"
        assert db.sql(query).fetchall() == [(24 + 1 + 8,)]


def test_a_run_that_never_grew_or_broke_is_its_data_folder(tmp_path):
    folder = OutputFolder(str(tmp_path / "out"))
    folder.prepare()
    finished(folder, methods=("n", "m"))
    with duckdb.connect() as db:
        query = f"SELECT method, count(*) FROM '{folder.url}/data/*.parquet' GROUP BY method ORDER BY method"
        assert db.sql(query).fetchall() == [("m", 12), ("n", 12)]
    assert len(pandas.read_parquet(f"{folder.url}/data")) == 24


@pytest.mark.parametrize("everything", [False, True])
def test_all_readers_of_python_see_the_same_rows_of_a_grown_table(grown, everything):
    rows = flexray.read(grown.url, everything=everything)
    expected = keys(rows.to_arrow().to_pylist())
    assert len(expected) == (23 if everything else 8)
    assert keys(rows.to_dataset().to_table().to_pylist()) == expected
    assert keys(rows.to_pandas().to_dict("records")) == expected


def test_partitions_by_method_are_written_by_arrow_and_read_by_duckdb(grown, tmp_path):
    rows = flexray.read(grown.url, everything=True)
    place = str(tmp_path / "by_method")
    partitions = {"partitioning": ["method"], "partitioning_flavor": "hive"}
    pa.dataset.write_dataset(rows.to_dataset(), place, format="parquet", **partitions)
    with duckdb.connect() as db:
        query = f"SELECT method, count(*) FROM '{place}/*/*.parquet' GROUP BY method ORDER BY method"
        assert db.sql(query).fetchall() == [("m", 12), ("n", 11)]
    assert len(pandas.read_parquet(f"{place}/method=n")) == 11


def test_a_wide_row_of_a_grown_table_has_what_each_method_says_now(grown, tmp_path):
    export(grown.url, str(tmp_path / "wide.parquet"), wide=True, everything=True)
    found = pa.parquet.read_table(tmp_path / "wide.parquet")
    assert sorted(found["row_id"].to_pylist()) == sorted(ROWS)
    (again,) = found.filter(pc.equal(found["row_id"], ROWS[1])).to_pylist()
    # n has not answered the question as it is now
    assert (again["question"], again["m"], again["n"]) == ("Who?", "Berlin", None)


@pytest.mark.parametrize("option", [{"wide": True}, {"rows_per_file": 2}, {"columns": "script"}])
def test_a_view_has_the_rows_and_columns_of_the_output(grown, tmp_path, option):
    with pytest.raises(OutputError, match="a view has the rows and columns of the output"):
        export(grown.url, str(tmp_path / "x.sql"), **option)
