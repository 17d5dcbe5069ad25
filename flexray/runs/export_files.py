"""The files of an export: how tables are written into one, by the end of its name."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

Write = Callable[[pa.Table], None]


@contextlib.contextmanager
def _parquet(file: Path, schema: pa.Schema) -> Iterator[Write]:
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        yield writer.write_table


@contextlib.contextmanager
def _feather(file: Path, schema: pa.Schema) -> Iterator[Write]:
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (
        pa.OSFile(os.fspath(file), "wb") as stream,
        pa.ipc.new_file(stream, schema, options=options) as writer,
    ):
        yield writer.write_table


@contextlib.contextmanager
def _csv(file: Path, schema: pa.Schema) -> Iterator[Write]:
    lists = [field.name for field in schema if pa.types.is_list(field.type)]
    flat = pa.schema([pa.field(f.name, pa.string()) if f.name in lists else f for f in schema])

    def write(table: pa.Table) -> None:
        for name in lists:
            texts = [None if value is None else _json(value) for value in table[name].to_pylist()]
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(texts, pa.string()))
        writer.write_table(table.cast(flat))

    with pa.csv.CSVWriter(file, flat) as writer:
        yield write


@contextlib.contextmanager
def _jsonl(file: Path, schema: pa.Schema) -> Iterator[Write]:
    def write(table: pa.Table) -> None:
        stream.writelines(f"{_json(row)}\n" for row in table.to_pylist())

    with file.open("w", encoding="utf-8") as stream:
        yield write


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


WRITERS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl, ".feather": _feather}
