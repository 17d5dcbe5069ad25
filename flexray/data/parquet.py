"""Parquet: only the required columns, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from flexray.data.columns import Unreadable, check_schema, pick_columns, to_rows
from flexray.data.record import Record
from flexray.data.required_fields import RequiredFields
from flexray.errors import DataError
from flexray.storage import open_file

BATCH_ROWS = 1024


def read_records(path: str, required: RequiredFields) -> Iterator[Record]:
    """Every record, holding its required columns only.

    Raises:
        DataError: the file is no Parquet, or lacks a required column.
    """
    with open_file(path) as stream:
        file = _open(path, stream)
        if file.metadata.num_rows:
            check_schema(path, file.schema_arrow, required)
            yield from _records(path, file, range(file.num_row_groups), 1, required)


def read_slice(path: str, first_row: int, num_rows: int, required: RequiredFields) -> list[Record]:
    """Records first_row .. first_row+num_rows-1, from the row groups that hold them.

    Raises:
        DataError: the file is no Parquet, or lacks a required column.
    """
    last_row = first_row + num_rows - 1
    with open_file(path) as stream:
        file = _open(path, stream)
        check_schema(path, file.schema_arrow, required)
        groups: list[int] = []
        start = next_row = 1
        for group in range(file.num_row_groups):
            row, next_row = next_row, next_row + file.metadata.row_group(group).num_rows
            if next_row > first_row and row <= last_row:
                start = start if groups else row
                groups.append(group)
        records = []
        for record in _records(path, file, groups, start, required):
            if record.row > last_row:
                break
            if record.row >= first_row:
                records.append(record)
        return records


def _open(path: str, stream: Any) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(stream)
    except Unreadable as e:
        raise DataError(f"{path}: cannot be read as Parquet: {e}") from e


def _records(
    path: str, file: pq.ParquetFile, groups: range | list[int], row: int, required: RequiredFields
) -> Iterator[Record]:
    columns = pick_columns(path, file.schema_arrow, required)
    try:
        for batch in file.iter_batches(BATCH_ROWS, row_groups=list(groups), columns=columns):
            for value in to_rows(batch):
                yield Record(row, value)
                row += 1
    except Unreadable as e:  # no row can be told from another
        raise DataError(f"{path}: columns {', '.join(columns)} cannot be read near row {row}: {e}") from e
