"""Read Parquet files: only the required columns, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from flexray.data.block import BLOCK_ROWS, Block
from flexray.data.columns import Unreadable, check_schema, of_batch, pick_columns
from flexray.data.required_fields import RequiredFields
from flexray.errors import DataError
from flexray.storage import open_file


def read(
    path: str, required: RequiredFields, start: int = 0, stop: int | None = None, first_row: int = 1
) -> Iterator[Block]:
    """The records in row groups [start, stop), with only the required columns. None: to the last.

    Args:
        first_row: number of the first of these records in the file.

    Raises:
        DataError: the file is not Parquet, or lacks a required column.
    """
    with open_file(path) as stream:
        file = _open(path, stream)
        if not file.metadata.num_rows:
            return
        check_schema(path, file.schema_arrow, required)
        groups = list(range(file.num_row_groups))[start:stop]
        columns = pick_columns(path, file.schema_arrow, required)
        row = first_row

        def unreadable(error: Exception) -> DataError:  # the exact row is not known
            return DataError(f"{path}: columns {', '.join(columns)} cannot be read near row {row}: {error}")

        try:
            for batch in file.iter_batches(BLOCK_ROWS, row_groups=groups, columns=columns):
                yield of_batch(batch, row, unreadable)
                row += batch.num_rows
        except DataError:
            raise
        except Unreadable as e:
            raise unreadable(e) from e


def count_rows(path: str) -> list[int]:
    """The rows of each row group. Raises DataError if the file is not Parquet."""
    with open_file(path) as stream:
        metadata = _open(path, stream).metadata
        return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def _open(path: str, stream: Any) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(stream)
    except Unreadable as e:
        raise DataError(f"{path}: cannot be read as Parquet: {e}") from e
