"""Read source files as a stream or one shard at a time, and auxiliary files completely."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from flexray.data import arrow, hub, json_array, json_lines, parquet
from flexray.data.files import SourceFile, find_files, with_version
from flexray.data.question import ShardSpec
from flexray.data.record import FieldFault, Record
from flexray.data.required_fields import FieldCheck, RequiredFields
from flexray.errors import DataError, RowFault
from flexray.storage import redact

FileVersions = tuple[tuple[SourceFile, str], ...]
"""Files and their versions, used as the key of a cache of their content."""
COLUMNAR: dict[str, Callable[..., Iterator[Record]]] = {
    "parquet": parquet.read,
    "arrow": arrow.read,
    "hub": hub.read,
}
"""The readers of formats with columns, whose files say which they have."""


def read_records(file: SourceFile, required: RequiredFields) -> Iterator[Record]:
    """All records in order. One record or batch is in memory at a time (the whole file for format json).

    Raises:
        DataError: while iterating, if the file has another format or lacks a required column.
    """
    if file.format == "jsonl":
        return json_lines.read_records(file.path)
    if file.format == "json":
        return json_array.read_records(file.path, required.under)
    read = COLUMNAR[file.format]
    return read(file.path, required)


def read_slice(spec: ShardSpec, required: RequiredFields) -> list[Record]:
    """The shard's records. Only as much of the file is read as its format requires.

    The number of records differs from `spec.num_rows` if the file has changed.

    Raises:
        DataError: the file no longer has this format.
        OSError: the file cannot be read.
    """
    if spec.format == "jsonl":
        assert spec.byte_range is not None, "a jsonl shard is planned with its byte range"
        return json_lines.read_slice(spec.file, spec.byte_range, spec.first_row)
    if spec.format == "json":
        return json_array.read_slice(spec.file, spec.first_row, spec.num_rows, required.under)
    last_row = spec.first_row + spec.num_rows - 1
    return list(COLUMNAR[spec.format](spec.file, required, spec.first_row, last_row))


def find_versions(patterns: tuple[str, ...], key: str) -> FileVersions:
    """The files and their current versions. Raises DataError as `find_files` does."""
    return tuple(with_version(file) for file in find_files(patterns, key))


def read_whole(versions: FileVersions, required: RequiredFields) -> Iterator[tuple[str, Record]]:
    """File and record, for each record of auxiliary files (templates, joined paraphrases).

    A fault of a record becomes an error of the rows that use it, if these rows are known. Otherwise any row
    may be affected, and the fault is raised as a DataError.

    Raises:
        DataError: a file cannot be read or lacks the required fields, or a record is not an object.
    """
    for file, _ in versions:
        check = FieldCheck(file.path, required)
        records = list(read_records(file, required))
        for record in records:
            check.add(record)
            if record.value is None:
                shown = record.raw[:200].decode("utf-8", "backslashreplace")
                fault = FieldFault("(record)", shown, record.problem, "Correct the row.")
                raise record_error(file.path, record, fault)
        check.check()
        yield from ((file.path, record) for record in records)


def record_error(file: str, record: Record, fault: FieldFault) -> DataError:
    """The error for a faulty record of an auxiliary file."""
    return DataError(
        str(RowFault(redact(file), record.row, fault.field, fault.value, fault.problem, fault.advice))
    )


def in_auxiliary_file(file: str, record: Record, faults: Sequence[FieldFault]) -> list[FieldFault]:
    """The faults of an auxiliary record, as faults of a row that uses it."""
    return [replace(fault, field=f"{fault.field} of {redact(file)}, row {record.row}") for fault in faults]
