"""Read Parquet files: only the required columns, batch by batch."""

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


def read(
    path: str, required: RequiredFields, first_row: int = 1, last_row: int | None = None
) -> Iterator[Record]:
    """Records first_row .. last_row (1-based, inclusive), with only the required columns. Other row groups
    are not read.

    Raises:
        DataError: the file is not Parquet, or lacks a required column.
    """
    with open_file(path) as stream:
        file = _open(path, stream)
        if not file.metadata.num_rows:
            return
        check_schema(path, file.schema_arrow, required)
        last_row = file.metadata.num_rows if last_row is None else last_row
        groups: list[int] = []
        start = next_row = 1
        for group in range(file.num_row_groups):
            row, next_row = next_row, next_row + file.metadata.row_group(group).num_rows
            if next_row > first_row and row <= last_row:
                start = start if groups else row
                groups.append(group)
        for record in _records(path, file, groups, start, required):
            if record.row > last_row:
                return
            if record.row >= first_row:
                yield record


def _open(path: str, stream: Any) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(stream)
    except Unreadable as e:
        raise DataError(f"{path}: cannot be read as Parquet: {e}") from e


def _records(
    path: str, file: pq.ParquetFile, groups: list[int], row: int, required: RequiredFields
) -> Iterator[Record]:
    columns = pick_columns(path, file.schema_arrow, required)
    try:
        for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=columns):
            for value in to_rows(batch):
                yield Record(row, value)
                row += 1
    except Unreadable as e:  # the exact row is not known
        raise DataError(f"{path}: columns {', '.join(columns)} cannot be read near row {row}: {e}") from e
