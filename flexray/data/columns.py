"""The required columns of Arrow record batches, and the records in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from flexray.data.block import Block
from flexray.data.record import Record
from flexray.data.required_fields import RequiredFields
from flexray.errors import DataError
from flexray.storage import redact

# errors for damaged pages, for values that Python cannot represent, and for invalid extension type metadata
Unreadable = (pa.ArrowException, OverflowError, ValueError, TypeError, KeyError)


def check_schema(path: str, schema: pa.Schema, required: RequiredFields) -> None:
    """Raises DataError if the columns lack required fields."""
    known = [name for field in schema for name in _paths(field, "")]
    required.check(path, known, known)


def pick_columns(file: str, schema: pa.Schema, required: RequiredFields) -> list[str]:
    """The columns that contain required fields.

    Raises:
        DataError: a column name is repeated, or a column has an extension type. These are refused because Ray
            registers extension types whose values are unpickled on reading, so a file could run code here.
    """
    names = schema.names
    tops = {path if path in names else path.partition(".")[0] for path in required.paths()}
    picked = sorted(names if required.everything else tops.intersection(names))
    for name in picked:
        if names.count(name) > 1:
            raise DataError(
                f"{redact(file)}: column {name!r} occurs {names.count(name)} times. Keep only one of them."
            )
        if extension := _extension(schema.field(name).type):
            raise DataError(
                f"{redact(file)}: column {name} has values of the extension type {extension}, which is not "
                "supported. Write it as plain text, numbers or lists."
            )
    return picked


def _extension(type_: pa.DataType) -> str:
    """The name of an extension type in this type, or ""."""
    if isinstance(type_, pa.BaseExtensionType):
        return str(type_.extension_name)
    inner = [type_.field(i).type for i in range(type_.num_fields)]
    if pa.types.is_dictionary(type_):  # its value type is not one of its fields
        inner.append(type_.value_type)
    return next(filter(None, map(_extension, inner)), "")


def of_batch(batch: pa.RecordBatch, first_row: int, unreadable: Callable[[Exception], DataError]) -> Block:
    """The block of a batch.

    Args:
        batch: the columns that `pick_columns` names.
        unreadable: the error for values that Python cannot represent.
    """

    def records(indices: Sequence[int]) -> list[Record]:
        try:
            if len(indices) > batch.num_rows // 8:  # a slice for each costs more than all rows together
                rows = _to_rows(batch)
                return [Record(first_row + i, rows[i]) for i in indices]
            return [Record(first_row + i, _to_rows(batch.slice(i, 1))[0]) for i in indices]
        except Unreadable as e:
            raise unreadable(e) from e

    return Block(first_row=first_row, num_rows=batch.num_rows, records=records, batch=batch)


def _to_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The batch's rows as dicts. Text that is not UTF-8 is kept as bytes, which the check of the row
    reports."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
        return rows
    except UnicodeDecodeError:  # Arrow does not check that a string column contains UTF-8
        names = batch.schema.names
        return [{n: _cell(batch.column(n)[i]) for n in names} for i in range(batch.num_rows)]


def _cell(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        if isinstance(scalar, pa.ListScalar):
            return [_cell(element) for element in scalar.values]
        return scalar.as_buffer().to_pybytes() if isinstance(scalar, pa.BinaryScalar) else b"(not UTF-8)"


def _paths(field: pa.Field, prefix: str) -> list[str]:
    path = prefix + field.name
    children = field.type if pa.types.is_struct(field.type) else ()
    return [path, *(p for child in children for p in _paths(child, path + "."))]
