"""Committed rows, written for other programs, and read back by those."""

import json
from pathlib import Path

import pandas
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import flexray
from flexray.cli.app import app
from flexray.errors import OutputError
from flexray.runs.export import export
from flexray.sink import OutputFolder
from tests.unit.sink.builders import commit_all, start

METHODS = ("one", "two")

READERS = {
    "parquet": pq.read_table,
    "feather": pa.feather.read_table,
    "csv": pa.csv.read_csv,
    "jsonl": lambda path: pa.Table.from_pylist(list(map(json.loads, Path(path).read_text().splitlines()))),
}


@pytest.fixture
def output(tmp_path):
    """Two committed shards of 3 and 2 questions, by two methods."""
    folder = OutputFolder(str(tmp_path / "out"))
    folder.prepare()
    commit_all(folder, start(folder, [f"qa/test/{i}" for i in range(5)], METHODS, shard_rows=3))
    return str(tmp_path / "out")


@pytest.mark.parametrize("extension", READERS)
def test_all_rows_come_back_in_every_format(output, tmp_path, extension):
    path = str(tmp_path / "new" / f"answers.{extension}")
    done = export(output, path)
    assert done.rows == 5 * len(METHODS)
    assert done.files == (path,)
    stored, found = flexray.read(output).to_arrow(), READERS[extension](path)
    assert found.column_names == stored.column_names
    if extension in ("parquet", "feather"):
        assert found.equals(stored)
    for column in ("row_id", "method", "prediction"):
        assert found[column].to_pylist() == stored[column].to_pylist()
    paraphrases = found["paraphrases"].to_pylist()
    if extension == "csv":
        paraphrases = list(map(json.loads, paraphrases))
    assert paraphrases == stored["paraphrases"].to_pylist()


def test_a_wide_row_is_a_question_with_a_column_for_each_method(output, tmp_path):
    first, second = METHODS
    export(output, str(tmp_path / "wide.feather"), wide=True, methods=[second, first])
    found, stored = pa.feather.read_table(tmp_path / "wide.feather"), flexray.read(output).to_arrow()
    assert found.num_rows == 5
    assert found.column_names[-6:] == [
        *(second, f"{second}.correct", f"{second}.error"), *(first, f"{first}.correct", f"{first}.error")
    ]  # fmt: skip
    for method in METHODS:
        rows = stored.filter(pc.equal(stored["method"], method))
        assert found["row_id"].to_pylist() == rows["row_id"].to_pylist()
        assert found[method].to_pylist() == rows["prediction"].to_pylist()


def test_many_files_hold_so_many_rows_each_and_together_all(output, tmp_path):
    arguments = ["export", output, "--to", str(tmp_path / "part.parquet"), "--rows-per-file", "4"]
    done = CliRunner().invoke(app, [*arguments, "--methods", METHODS[0]])
    assert done.exit_code == 0, done.output
    assert done.output.strip() == "files=2 rows=5"
    parts = [pq.read_table(tmp_path / f"part-0000{number}.parquet") for number in (0, 1)]
    assert [part.num_rows for part in parts] == [4, 1]
    assert set(pa.concat_tables(parts)["method"].to_pylist()) == {METHODS[0]}
    again = export(output, str(tmp_path / "part.parquet"), rows_per_file=20)
    assert again.files == (str(tmp_path / "part-00000.parquet"),)
    assert sorted(file.name for file in tmp_path.glob("part*")) == ["part-00000.parquet"]


def test_what_cannot_be_written_is_refused_and_an_earlier_file_stays(output, tmp_path):
    path = tmp_path / "answers.csv"
    path.write_text("mine")
    with pytest.raises(OutputError, match=f"has no method 'other'. It has {', '.join(METHODS)}"):
        export(output, str(path), methods=["other"])
    with pytest.raises(OutputError, match=r"answers.xlsx: the name of the file has to end in one of"):
        export(output, str(tmp_path / "answers.xlsx"))
    with pytest.raises(OutputError, match="a method is named twice"):
        export(output, str(path), methods=["one", "one"])
    with pytest.raises(OutputError, match="is within the run's own folder"):
        export(output, f"{output}/plan/x.parquet")
    next((tmp_path / "out" / "data").iterdir()).write_bytes(b"damaged")
    with pytest.raises(flexray.UserError):
        export(output, str(path))
    assert path.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_the_rows_as_an_arrow_data_set_and_by_pandas_alone(output):
    rows = flexray.read(output)
    data_set = rows.to_dataset()
    assert data_set.count_rows() == 5 * len(METHODS)
    table = data_set.to_table(columns=["prediction"], filter=pc.field("method") == METHODS[1])
    assert table.num_rows == 5
    frame = pandas.read_parquet(f"{output}/data")
    assert sorted(frame["row_id"]) == sorted(rows.to_pandas()["row_id"])


@pytest.mark.usefixtures("s3")
def test_it_is_written_to_an_object_store(output, bucket, behind):
    export(output, f"s3://{bucket}/exports/answers.parquet")
    with behind.open(f"{bucket}/exports/answers.parquet") as file:
        assert pq.read_table(file).equals(flexray.read(output).to_arrow())
    assert [name.rpartition("/")[2] for name in behind.ls(f"{bucket}/exports")] == ["answers.parquet"]
