"""Read Arrow IPC files, as `datasets` saves them: only the required columns, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from flexray.data.columns import Unreadable, check_schema, pick_columns, to_rows
from flexray.data.record import Record
from flexray.data.required_fields import RequiredFields
from flexray.errors import DataError
from flexray.storage import connect, open_file, redact, retry

_FILE_MAGIC = b"ARROW1"


def read(
    path: str, required: RequiredFields, first_row: int = 1, last_row: int | None = None
) -> Iterator[Record]:
    """Records first_row .. last_row (1-based, inclusive), with only the required columns.

    In a local file, batches before first_row are not read.

    Raises:
        DataError: the file is not Arrow IPC, or lacks a required column.
    """
    row = 1
    try:
        with _open(path) as (schema, batches):
            columns = pick_columns(path, schema, required)
            for batch in batches:
                if row == 1 and batch.num_rows:
                    check_schema(path, schema, required)
                start, row = row, row + batch.num_rows
                if row <= first_row:
                    continue
                skipped = max(0, first_row - start)
                left = None if last_row is None else last_row - start - skipped + 1
                rows = to_rows(batch.select(columns).slice(skipped, left))
                for number, value in enumerate(rows, start=start + skipped):
                    yield Record(number, value)
                if last_row is not None and row > last_row:
                    return
    except DataError:
        raise
    except Unreadable as e:
        raise DataError(f"{redact(path)}: cannot be read as Arrow near row {row}: {e}") from e


def count_rows(path: str) -> int:
    """Rows of a file. Of a local one no more is read than the heads of its batches."""
    with _open(path) as (_, batches):
        return sum(batch.num_rows for batch in batches)


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
