"""Arrow's record batches as records: only the required columns."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from flexray.data.required_fields import RequiredFields
from flexray.errors import DataError
from flexray.storage import redact

# damaged pages, values outside Python's types, metadata that an extension type's own code cannot read
Unreadable = (pa.ArrowException, OverflowError, ValueError, TypeError, KeyError)


def check_schema(path: str, schema: pa.Schema, required: RequiredFields) -> None:
    """Raises DataError if the columns lack required fields."""
    known = [name for field in schema for name in _paths(field, "")]
    required.check(path, known, known)


def pick_columns(file: str, schema: pa.Schema, required: RequiredFields) -> list[str]:
    """The columns that hold required fields.

    Raises:
        DataError: one is there twice, or is of an extension type. Ray registers types whose values are
            unpickled when they are read, so that a file could run code here.
    """
    names = schema.names
    tops = {path if path in names else path.partition(".")[0] for path in required.paths()}
    picked = sorted(tops.intersection(names))
    for name in picked:
        if names.count(name) > 1:
            raise DataError(f"{redact(file)}: column {name!r} is there {names.count(name)} times. Leave one.")
        if extension := _extension(schema.field(name).type):
            raise DataError(
                f"{redact(file)}: column {name} holds values of the extension type {extension}, which is not "
                "read. Write it as plain text, numbers or lists."
            )
    return picked


def _extension(type_: pa.DataType) -> str:
    """The name of an extension type, or of one within; "" if there is none."""
    if isinstance(type_, pa.BaseExtensionType):
        return str(type_.extension_name)
    inner = [type_.field(i).type for i in range(type_.num_fields)]
    if pa.types.is_dictionary(type_):  # it has no fields
        inner.append(type_.value_type)
    return next(filter(None, map(_extension, inner)), "")


def to_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The batch's rows as dicts. Text that is not UTF-8 stays bytes: the row's check will report it."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
        return rows
    except UnicodeDecodeError:  # Arrow does not check that a string column holds UTF-8
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
