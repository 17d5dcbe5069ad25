"""Records of one source file: all of them in a stream, or just one shard's."""

from __future__ import annotations

from collections.abc import Iterator

from flexray.data import arrow, json_array, json_lines, parquet
from flexray.data.files import SourceFile
from flexray.data.question import ShardSpec
from flexray.data.records import Record
from flexray.data.required_fields import RequiredFields


def read_records(file: SourceFile, required: RequiredFields) -> Iterator[Record]:
    """Every record in order; memory for one record or batch (format json: the whole file).

    Raises:
        DataError: while iterating, when the file is of another format or lacks a wanted column.
    """
    if file.format == "jsonl":
        return json_lines.read_records(file.path)
    if file.format == "json":
        return json_array.read_records(file.path, required.under)
    if file.format == "arrow":
        return arrow.read_records(file.path, required)
    return parquet.read_records(file.path, required)


def read_slice(spec: ShardSpec, required: RequiredFields) -> list[Record]:
    """The shard's records, touching no more of the file than the format demands.

    There are fewer or more than `spec.num_rows` of them if the file has changed.

    Raises:
        DataError: the file is no longer of its format.
        OSError: the file cannot be read.
    """
    if spec.format == "jsonl":
        assert spec.byte_range is not None, "a jsonl shard is planned with its byte range"
        return json_lines.read_slice(spec.file, spec.byte_range, spec.first_row)
    if spec.format == "json":
        return json_array.read_slice(spec.file, spec.first_row, spec.num_rows, required.under)
    if spec.format == "arrow":
        return arrow.read_slice(spec.file, spec.first_row, spec.num_rows, required)
    return parquet.read_slice(spec.file, spec.first_row, spec.num_rows, required)
