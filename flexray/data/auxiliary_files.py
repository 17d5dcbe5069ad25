"""Files that are read whole beside those of the rows: templates, generated paraphrases.

A faulty record in one would spoil rows that cannot be told, so such a file must be whole: what is wrong
with a record and can be laid at a row's door becomes that row's error, anything else a DataError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from flexray.data.field_check import FieldCheck
from flexray.data.files import SourceFile, find_files, with_version
from flexray.data.readers import read_records
from flexray.data.records import Fault, Record
from flexray.data.required_fields import RequiredFields
from flexray.errors import DataError, RowFault
from flexray.storage import redact

Versions = tuple[tuple[SourceFile, str], ...]  # the key for a cache of what was made of the files


def find_versions(patterns: tuple[str, ...], key: str) -> Versions:
    """The files as they are now. Raises DataError as `find_files` does."""
    return tuple(with_version(file) for file in find_files(patterns, key))


def read_whole(versions: Versions, required: RequiredFields) -> Iterator[tuple[str, Record]]:
    """File and record, of each record.

    Raises:
        DataError: a file that cannot be read, has none of the wanted fields, or has a row that is no object.
    """
    for file, _ in versions:
        check = FieldCheck(file.path, required)
        records = list(read_records(file, required))
        for record in records:
            check.add(record)
            if record.value is None:
                shown = record.raw[:200].decode("utf-8", "backslashreplace")
                raise faulty(file.path, record, Fault("(record)", shown, record.problem, "Correct the row."))
        check.check()
        yield from ((file.path, record) for record in records)


def faulty(file: str, record: Record, fault: Fault) -> DataError:
    """The error for a record that no row can be blamed for."""
    return DataError(
        str(RowFault(redact(file), record.row, fault.field, fault.value, fault.problem, fault.advice))
    )


def in_side_file(file: str, record: Record, faults: Sequence[Fault]) -> list[Fault]:
    """The faults of a record as those of a row of another file."""
    return [replace(fault, field=f"{fault.field} of {redact(file)}, row {record.row}") for fault in faults]
