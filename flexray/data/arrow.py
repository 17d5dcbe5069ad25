"""Read Arrow IPC files, as `datasets` saves them: only the required columns, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from flexray.data.block import Block
from flexray.data.columns import Unreadable, check_schema, of_batch, pick_columns
from flexray.data.required_fields import RequiredFields
from flexray.errors import DataError
from flexray.storage import connect, open_file, redact, retry

_FILE_MAGIC = b"ARROW1"


def read(
    path: str, required: RequiredFields, start: int = 0, stop: int | None = None, first_row: int = 1
) -> Iterator[Block]:
    """The records in batches [start, stop), with only the required columns. None: to the last.

    Of a local file, other batches are not read.

    Args:
        first_row: number of the first of these records in the file.

    Raises:
        DataError: the file is not Arrow IPC, or lacks a required column.
    """
    row = first_row

    def unreadable(error: Exception) -> DataError:
        return DataError(f"{redact(path)}: cannot be read as Arrow near row {row}: {error}")

    try:
        with _open(path) as (schema, batches):
            columns = pick_columns(path, schema, required)
            for number, batch in enumerate(batches):
                if stop is not None and number >= stop:
                    return
                if number < start or not batch.num_rows:
                    continue
                if row == first_row:
                    check_schema(path, schema, required)
                yield of_batch(batch.select(columns), row, unreadable)
                row += batch.num_rows
    except DataError:
        raise
    except Unreadable as e:
        raise unreadable(e) from e


def count_rows(path: str) -> list[int]:
    """The rows of each batch of a file. Of a local one no more is read than the heads of its batches."""
    with _open(path) as (_, batches):
        return [batch.num_rows for batch in batches]


@contextmanager
def _open(path: str) -> Iterator[tuple[pa.Schema, Iterator[Any]]]:
    """The schema and an iterator over the batches, for the stream format and the file format."""
    fs, name = retry(path, lambda: connect(path))
    with pa.memory_map(name) if isinstance(fs, LocalFileSystem) else open_file(path) as stream:
        magic = stream.read(len(_FILE_MAGIC))
        stream.seek(0)
        if magic == _FILE_MAGIC:
            file = pa.ipc.open_file(stream)
            yield file.schema, (file.get_batch(i) for i in range(file.num_record_batches))
        else:
            reader = pa.ipc.open_stream(stream)
            yield reader.schema, iter(reader)
