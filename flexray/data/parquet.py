"""Parquet: only the mapped columns, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flexray.config import Fields
from flexray.data.census import missing_field
from flexray.data.files import open_file
from flexray.data.records import Record, field_paths
from flexray.types import DataError

BATCH_ROWS = 1024


def read_records(path: str, fields: Fields) -> Iterator[Record]:
    """Every record, holding its mapped columns only.

    Raises:
        DataError: the file is no Parquet, or lacks a mapped column.
    """
    with open_file(path) as stream:
        file = _open(path, stream)
        if file.metadata.num_rows:
            _check_columns(path, file.schema_arrow, fields)
            yield from _records(path, file, range(file.num_row_groups), 1, fields)


def read_slice(path: str, first_row: int, num_rows: int, fields: Fields) -> list[Record]:
    """Records first_row .. first_row+num_rows-1, from the row groups that hold them.

    Raises:
        DataError: the file is no Parquet, or lacks a mapped column.
    """
    last_row = first_row + num_rows - 1
    with open_file(path) as stream:
        file = _open(path, stream)
        _check_columns(path, file.schema_arrow, fields)
        groups: list[int] = []
        start = next_row = 1
        for group in range(file.num_row_groups):
            row, next_row = next_row, next_row + file.metadata.row_group(group).num_rows
            if next_row > first_row and row <= last_row:
                start = start if groups else row
                groups.append(group)
        records = []
        for record in _records(path, file, groups, start, fields):
            if record.row > last_row:
                break
            if record.row >= first_row:
                records.append(record)
        return records


def _open(path: str, stream: Any) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(stream)
    except pa.ArrowException as e:
        raise DataError(f"{path}: cannot be read as Parquet: {e}") from e


def _records(
    path: str, file: pq.ParquetFile, groups: range | list[int], row: int, fields: Fields
) -> Iterator[Record]:
    names = file.schema_arrow.names
    columns = sorted({p if p in names else p.partition(".")[0] for p in field_paths(fields).values()})
    try:
        for batch in file.iter_batches(BATCH_ROWS, row_groups=list(groups), columns=columns):
            for value in _to_rows(batch):
                yield Record(row, value)
                row += 1
    except (pa.ArrowException, OverflowError, ValueError) as e:
        # Only damaged pages and values outside Python's types get here: no row can be told from another.
        raise DataError(f"{path}: columns {', '.join(columns)} cannot be read near row {row}: {e}") from e


def _to_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:  # Arrow does not check that a string column holds UTF-8
        names = batch.schema.names
        return [{n: _cell(batch.column(n)[i]) for n in names} for i in range(batch.num_rows)]


def _cell(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        # Bytes are no text: the row's check will report them, and its other fields are kept.
        if isinstance(scalar, pa.ListScalar):
            return [_cell(element) for element in scalar.values]
        return scalar.as_buffer().to_pybytes() if isinstance(scalar, pa.BinaryScalar) else b"(not UTF-8)"


def _check_columns(path: str, schema: pa.Schema, fields: Fields) -> None:
    known = [name for field in schema for name in _paths(field, "")]
    for role, name in field_paths(fields).items():
        if name not in known:
            raise missing_field(path, role, name, known)


def _paths(field: pa.Field, prefix: str) -> list[str]:
    path = prefix + field.name
    children = field.type if pa.types.is_struct(field.type) else ()
    return [path, *(p for child in children for p in _paths(child, path + "."))]
