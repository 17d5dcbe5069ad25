"""Read source files block by block, and auxiliary files completely."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from flexray.data import arrow, delimited, hub, json_array, json_lines, parquet
from flexray.data.block import Block
from flexray.data.files import SourceFile, find_files, reading_file, with_version
from flexray.data.partitions import keys_of, with_keys, without
from flexray.data.record import FieldFault, Record
from flexray.data.required_fields import FieldCheck, RequiredFields
from flexray.errors import DataError, RowFault
from flexray.storage import redact

FileVersions = tuple[tuple[SourceFile, str], ...]
"""Files and their versions, used as the key of a cache of their content."""
DELIMITERS = {"csv": ",", "tsv": "\t"}
COLUMNAR = ("parquet", "arrow", "hub")
"""The formats with columns, whose files say which they have."""


def read_blocks(
    file: SourceFile, required: RequiredFields, start: int = 0, stop: int | None = None, first_row: int = 1
) -> Iterator[Block]:
    """The records of a file, or of a part of it, in order. One block is in memory at a time.

    Args:
        start: where the part begins: of jsonl the first byte, of Parquet the first row group, of Arrow the
            first record batch. Other formats are read whole.
        stop: where it ends; None: at the end of the file.
        first_row: number of its first record in the file.

    Raises:
        DataError: while iterating, if the file has another format or lacks a required column.
    """
    keys = keys_of(file.path, required)
    blocks = _read(file, without(required, keys) if keys else required, start, stop, first_row)
    return (with_keys(block, keys) for block in blocks) if keys else blocks


def _read(
    file: SourceFile, required: RequiredFields, start: int, stop: int | None, first_row: int
) -> Iterator[Block]:
    if file.format == "jsonl":
        return json_lines.read(file.path, start, stop, first_row)
    if file.format == "parquet":
        return parquet.read(file.path, required, start, stop, first_row)
    if file.format == "arrow":
        return arrow.read(file.path, required, start, stop, first_row)
    assert (start, stop) == (0, None), file
    if file.format == "json":
        return json_array.read(file.path, required.under, required.inside)
    if file.format in DELIMITERS:
        return delimited.read(file.path, DELIMITERS[file.format])
    return hub.read(file.path, required)


def read_records(file: SourceFile, required: RequiredFields) -> Iterator[Record]:
    """All records of a file in order. Raises as `read_blocks`."""
    for block in read_blocks(file, required):
        yield from block.records(range(block.num_rows))


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
        with reading_file(file):
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
