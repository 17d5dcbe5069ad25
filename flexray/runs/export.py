"""Write a run's committed rows into one file or several, for other programs."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from flexray.errors import OutputError
from flexray.runs.export_files import WRITERS
from flexray.runs.script_columns import ScriptColumns
from flexray.runs.sql_view import view_sql
from flexray.sink import OutputFolder, load_run, read_committed
from flexray.sink.folder import split_path
from flexray.sink.records.rows import ROW_SCHEMA
from flexray.storage import describe, redact

OF_METHOD = ("correct", "error")
"""The columns of a wide row beside each method's prediction, named METHOD.correct and METHOD.error."""
OF_QUESTION = (
    "row_id", "dataset", "split", "source_file", "source_row", "source_id", "question", "paraphrases",
    "answers", "relation", "num_manual", "confidences", "candidates",
)  # fmt: skip
"""The columns of a wide row that are the same for all methods."""

SQL = ".sql"
_WIDE = pa.schema([ROW_SCHEMA.field(name) for name in ("row_id", "prediction", *OF_METHOD)])


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What was written."""

    files: tuple[str, ...]
    rows: int
    notes: tuple[str, ...] = ()
    """What a user should know of what was written."""

    def summary_line(self) -> str:
        """One line for people and programs."""
        return f"files={len(self.files)} rows={self.rows}"


def export(
    output: str,
    path: str,
    *,
    wide: bool = False,
    methods: Sequence[str] = (),
    everything: bool = False,
    rows_per_file: int = 0,
    columns: Literal["output", "script"] = "output",
) -> Exported:
    """Write the committed rows of a run, shard by shard, each checked against its manifest as it is read.

    Args:
        output: path or URL of the output folder.
        path: path or URL of a file that ends in .parquet, .csv, .jsonl or .feather; an earlier one is
            replaced. Lists are JSON in a CSV file. Or of a file that ends in .sql: a view of DuckDB's SQL
            over the data files, named after the file; no rows are copied.
        wide: a row a question, and a column a method with its prediction. Else a row a question and method.
        methods: only these, in this order. (): those that the last recipe names.
        everything: also rows, and without `methods` methods, that the last recipe does not name.
        rows_per_file: at most, of files named NAME-00000 and so on; 0: all in one file.
        columns: script: those of `flexray.runs.script_columns`.

    Raises:
        OutputError: there is no run or no such method, or the file cannot be written.
        DamageError: a manifest or data file cannot be trusted.
    """
    folder = OutputFolder(output)
    chosen = _chosen(folder, methods, everything)
    suffix = next((suffix for suffix in (*WRITERS, SQL) if path.endswith(suffix)), None)
    if suffix is None:
        raise OutputError(f"{path}: the name of the file has to end in one of {', '.join((*WRITERS, SQL))}.")
    if wide and columns == "script":
        raise OutputError(f"{path}: a wide row has no columns of a script. Export with one of the two.")
    to, name = split_path(path)
    if f"{to.url}/".startswith(f"{folder.url.rstrip('/')}/"):
        raise OutputError(f"{path}: is within the run's own folder. Name a file elsewhere.")
    if suffix == SQL:
        if wide or rows_per_file or columns == "script":
            raise OutputError(f"{path}: a view has the rows and columns of the output, and no others.")
        statement, files = view_sql(folder, name.removesuffix(SQL), everything=everything, methods=chosen)
        with _writing(path):
            to.prepare()
            to.write_bytes(name, statement.encode())
        return Exported(files=(to.where(name),), rows=0, notes=(f"a view of the rows in {files} data files",))
    script = ScriptColumns(load_run(folder)) if columns == "script" else None
    schema = script.schema if script else _wide_schema(chosen) if wide else ROW_SCHEMA
    if len(set(schema.names)) < len(schema):
        raise OutputError(f"{path}: a method has the name of another column. Export without --wide.")

    def read() -> Iterator[pa.Table]:
        return read_committed(folder, everything=everything, methods=chosen)

    tables = _widened(read, chosen) if wide else (_only(table, chosen) for table in read())
    tables = map(script.of, tables) if script else tables
    to.prepare()
    names: list[str] = []
    rows = 0
    stem = name.removesuffix(suffix)
    # all are written before the first takes its place
    with tempfile.TemporaryDirectory(dir=to.local_path, prefix=".export-") as scratch, _writing(path):
        for part in _parts(tables, rows_per_file):
            names.append(f"{stem}-{len(names):05d}{suffix}" if rows_per_file else name)
            with WRITERS[suffix](Path(scratch) / names[-1], schema) as write:
                for table in part:
                    write(table)
                    rows += table.num_rows
        for written in names:
            to.put_file(Path(scratch) / written, written)
        for old in to.list() if rows_per_file else ():
            if re.fullmatch(rf"{re.escape(stem)}-\d{{5,}}{re.escape(suffix)}", old) and old not in names:
                to.remove(old)  # of an earlier export in more files
    return Exported(files=tuple(map(to.where, names)), rows=rows, notes=script.notes if script else ())


def _chosen(folder: OutputFolder, methods: Sequence[str], everything: bool) -> tuple[str, ...]:
    run = load_run(folder)
    known = run.methods
    if unknown := [method for method in methods if method not in known]:
        raise OutputError(f"{folder}: has no method {unknown[0]!r}. It has {', '.join(known)}.")
    if len(set(methods)) < len(methods):
        raise OutputError(f"{folder}: a method is named twice: {', '.join(methods)}. Name it once.")
    return tuple(methods) or (known if everything else run.selection.methods)


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as e:
        raise OutputError(f"{redact(path)}: cannot be written: {describe(e)}. Name another file.") from e


def _only(table: pa.Table, methods: Sequence[str]) -> pa.Table:
    """The rows of some methods, method by method in their order."""
    return pa.concat_tables([table.filter(pc.equal(table["method"], method)) for method in methods])


def _wide_schema(methods: Sequence[str]) -> pa.Schema:
    fields = [ROW_SCHEMA.field(name) for name in OF_QUESTION]
    for method in methods:
        fields.append(pa.field(method, pa.string()))  # null: the method has not answered this question
        fields += [
            ROW_SCHEMA.field(name).with_name(f"{method}.{name}").with_nullable(True) for name in OF_METHOD
        ]
    return pa.schema(fields)


def _widened(read: Callable[[], Iterable[pa.Table]], methods: Sequence[str]) -> Iterator[pa.Table]:
    """A row for each question, where the first of the methods that has it does. What a method says of a
    question may stand in another shard, so all predictions are held in memory, and nothing else."""
    said = {method: [_WIDE.empty_table()] for method in methods}
    for table in read():
        for method in table["method"].unique().to_pylist():
            said[method].append(table.filter(pc.equal(table["method"], method)).select(_WIDE.names))
    by_method = {method: pa.concat_tables(tables).combine_chunks() for method, tables in said.items()}
    ids = {method: table["row_id"].combine_chunks() for method, table in by_method.items()}
    for table in read():
        for number, method in enumerate(methods):
            rows = table.filter(pc.equal(table["method"], method))
            for before in methods[:number]:
                rows = rows.filter(pc.invert(pc.is_in(rows["row_id"], ids[before])))
            columns = [rows[name] for name in OF_QUESTION]
            for other in methods:
                found = by_method[other].take(pc.index_in(rows["row_id"], ids[other]))
                columns += [found["prediction"], *(found[name] for name in OF_METHOD)]
            yield pa.table(columns, schema=_wide_schema(methods))


def _parts(tables: Iterable[pa.Table], rows: int) -> Iterator[Iterator[pa.Table]]:
    """The tables as runs of `rows` rows each, the last one shorter; 0: one run. There is always one."""
    left = iter(tables)
    rest: pa.Table | None = next(left, None)

    def part() -> Iterator[pa.Table]:
        nonlocal rest
        room = rows
        while rest is not None and (room > 0 or not rows):
            taken = rest.slice(0, room) if rows else rest
            room -= taken.num_rows
            rest = rest.slice(taken.num_rows) if taken.num_rows < rest.num_rows else next(left, None)
            yield taken

    yield part()
    while rest is not None:
        yield part()
