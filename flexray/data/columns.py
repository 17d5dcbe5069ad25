"""Arrow's record batches as records: only the wanted columns."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from flexray.data.wanted import Wanted

Unreadable = (pa.ArrowException, OverflowError, ValueError)  # damaged pages, values outside Python's types


def check_schema(path: str, schema: pa.Schema, wanted: Wanted) -> None:
    """Raises DataError if the columns have no whole form of the wanted fields."""
    known = [name for field in schema for name in _paths(field, "")]
    wanted.check(path, known, known)


def pick_columns(schema: pa.Schema, wanted: Wanted) -> list[str]:
    """The columns that hold wanted fields."""
    names = schema.names
    tops = {path if path in names else path.partition(".")[0] for path in wanted.paths()}
    return sorted(tops.intersection(names))


def to_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The batch's rows as dicts. Text that is not UTF-8 stays bytes: the row's check will report it."""
    try:
        return batch.to_pylist()
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
