"""The values of the fields of many records, as Arrow columns.

A value that is not plainly of the right type is null (in a list of texts: the list is empty). That says
nothing about the record: it is looked at again by itself (`validate.to_question`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flexray.config.data import Fields
from flexray.data.record import MISSING, field_paths, listed, looks_like_data, lookup

TEXTS = pa.list_(pa.string())
NUMBERS = pa.list_(pa.float64())
_MOST = 2**31 - 1  # num_manual is an int32


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldColumns:
    """One array for each role, of equal lengths; None for a role that is not mapped."""

    id: pa.Array  # string
    question: pa.Array  # string
    paraphrases: pa.Array | None = None  # list of string
    answers: pa.Array | None = None  # list of string
    relation: pa.Array | None = None  # string; "": no group
    num_manual: pa.Array | None = None  # int64
    confidences: pa.Array | None = None  # list of double
    candidates: pa.Array | None = None  # list of string


def of_values(values: Sequence[dict[str, Any] | None], fields: Fields) -> FieldColumns:
    """The columns of objects. All roles of a record that lacks one of the fields are null.

    Args:
        fields: with an id.
    """
    paths = field_paths(fields)
    nothing = (None,) * len(paths)
    get: Callable[[Any], tuple[Any, ...]] = itemgetter(*paths.values())
    rows = []
    for value in values:
        try:
            rows.append(get(value))
        except (KeyError, TypeError):  # there may be a dotted path
            row = tuple(lookup(value, path) for path in paths.values())
            rows.append(nothing if MISSING in row else row)
    found = zip(paths, zip(*rows, strict=True) if rows else ((),) * len(paths), strict=True)
    return FieldColumns(**{role: _OF_VALUES[role](column) for role, column in found})


def of_batch(batch: pa.RecordBatch, fields: Fields) -> FieldColumns | None:
    """The columns of a record batch; None if one of the fields is not a top-level column of a plain type, or
    has text that is not UTF-8."""
    columns: dict[str, pa.Array] = {}
    try:
        for role, path in field_paths(fields).items():
            if path not in batch.schema.names:
                return None
            column = batch.column(path)
            column.validate(full=True)
            columns[role] = _OF_COLUMN[role](column)
    except (pa.ArrowException, ValueError, TypeError):
        return None
    return None if any(column is None for column in columns.values()) else FieldColumns(**columns)


def _ids(column: Sequence[Any]) -> pa.Array:
    return _texts([str(value) if type(value) is int else value for value in column])


def _texts(column: Sequence[Any]) -> pa.Array:
    values = [value if type(value) is str else None for value in column]
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([value if _is_text(value) else None for value in values], pa.string())


def _is_text(value: Any) -> bool:
    if type(value) is not str:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _relations(column: Sequence[Any]) -> pa.Array:
    return _texts(["" if value is None else value for value in column])


def _paraphrases(column: Iterable[Any]) -> pa.Array:
    return _lists(v if type(v) is list else listed(v) for v in column)


def _answers(column: Iterable[Any]) -> pa.Array:
    return _lists(v if type(v) is list else listed(v) or _alone(v) for v in column)


def _alone(value: Any) -> list[str] | None:
    """A single answer; a text that looks like a list is none."""
    if type(value) is not str or looks_like_data(value):
        return None
    return [value]


def _lists(column: Iterable[list[Any] | None]) -> pa.Array:
    lists = [value or () for value in column]
    texts: list[Any] = []
    for value in lists:
        texts += value
    try:
        flat = pa.array(texts, pa.string())
    except (pa.ArrowException, TypeError, UnicodeEncodeError):
        return _lists([list(value) if all(map(_is_text, value)) else None for value in lists])
    ends = [0]
    end = 0
    for value in lists:
        end += len(value)
        ends.append(end)
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), flat)


def _counts(column: Iterable[Any]) -> pa.Array:
    column = [len(v) if type(v) is list else v for v in column]
    return pa.array([v if type(v) is int and 0 <= v <= _MOST else None for v in column], pa.int64())


def _numbers(column: Iterable[Any]) -> pa.Array:
    def good(value: Any) -> bool:
        return type(value) is list and all(type(v) in (float, int) and 0 <= v <= 1 for v in value)

    return pa.array([value if good(value) else None for value in column], NUMBERS)


_OF_VALUES: dict[str, Callable[[Sequence[Any]], pa.Array]] = {
    "id": _ids,
    "question": _texts,
    "paraphrases": _paraphrases,
    "answers": _answers,
    "relation": _relations,
    "num_manual": _counts,
    "confidences": _numbers,
    "candidates": _paraphrases,
}


def _is_texts(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _id_column(column: pa.Array) -> pa.Array | None:
    whole = pa.types.is_integer(column.type)
    return column.cast(pa.string()) if whole else _text_column(column)


def _text_column(column: pa.Array) -> pa.Array | None:
    type_ = column.type
    inner = type_.value_type if pa.types.is_dictionary(type_) else type_
    return column.cast(pa.string()) if _is_texts(inner) else None


def _relation_column(column: pa.Array) -> pa.Array | None:
    texts = _text_column(column)
    return None if texts is None else pc.fill_null(texts, "")


def _list_column(column: pa.Array, of_texts: Callable[[Iterable[Any]], pa.Array]) -> pa.Array | None:
    type_ = column.type
    if _is_texts(type_):
        return of_texts(column.to_pylist())
    lists = pa.types.is_list(type_) or pa.types.is_large_list(type_)
    return column.cast(TEXTS) if lists and _is_texts(type_.value_type) else None


def _count_column(column: pa.Array) -> pa.Array | None:
    return column.cast(pa.int64()) if pa.types.is_integer(column.type) else None


def _number_column(column: pa.Array) -> pa.Array | None:
    type_ = column.type
    lists = pa.types.is_list(type_) or pa.types.is_large_list(type_)
    numbers = lists and (pa.types.is_integer(type_.value_type) or pa.types.is_floating(type_.value_type))
    return column.cast(NUMBERS) if numbers else None


_OF_COLUMN: dict[str, Callable[[pa.Array], pa.Array | None]] = {
    "id": _id_column,
    "question": _text_column,
    "paraphrases": lambda column: _list_column(column, _paraphrases),
    "answers": lambda column: _list_column(column, _answers),
    "relation": _relation_column,
    "num_manual": _count_column,
    "confidences": _number_column,
    "candidates": lambda column: _list_column(column, _paraphrases),
}
