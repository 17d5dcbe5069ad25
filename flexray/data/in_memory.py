"""Convert rows in memory to Questions: dicts, a pandas or Arrow table, or a `datasets.Dataset`."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from flexray.config.data import DataConfig, Fields
from flexray.data.identity import identify
from flexray.data.question import Question
from flexray.data.record import MISSING, field_paths, lookup, to_record
from flexray.data.validate import to_question
from flexray.errors import DataError, shown

NEEDED = ("question", "candidates", "confidences")
"""Roles that each row must have if the recipe names a field for them."""
SOURCE = "rows"
"""The text that replaces the file name in messages about a row."""


def rows_of(rows: Any) -> list[dict[str, Any]]:
    """The rows as dicts of plain Python values.

    Args:
        rows: an iterable of mappings, a pandas DataFrame, an Arrow table or a `datasets.Dataset`.

    Raises:
        DataError: `rows` has another type, or a row is not a mapping.
    """
    if hasattr(rows, "iloc") and rows.ndim == 2:  # of pandas, which need not be installed
        rows = pa.Table.from_pandas(rows, preserve_index=False)
    if isinstance(rows, pa.Table | pa.RecordBatch):
        return list(rows.to_pylist())
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        raise DataError(
            f"rows: a list of dicts, a table or a Dataset is needed, not {type(rows).__name__}. "
            "Put a single row in a list."
        )
    found = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"rows, row {number}: a dict is needed, not {shown(row)}. Give its fields names.")
        found.append({str(key): _plain(value) for key, value in row.items()})
    return found


def fields_of(
    rows: Sequence[Mapping[str, Any]], fields: Fields, *, keep: Container[str] = ("question",)
) -> Fields:
    """The fields with those set to null that no row has (a None is none), but for those to keep."""
    absent = {
        role: None
        for role, path in field_paths(fields).items()
        if role not in keep and all(lookup(row, path) in (MISSING, None) for row in rows)
    }
    return fields.model_copy(update=absent)


def to_questions(rows: Sequence[Mapping[str, Any]], config: DataConfig) -> list[Question]:
    """Check the rows like rows of a file, but a row without paraphrases asks the question itself, one
    without answers is not scored, and none needs an id, which others may share. A faulty row gets an
    `error`."""
    questions = []
    for number, row in enumerate(rows, start=1):
        fields = fields_of([row], config.fields, keep=NEEDED)
        asks_itself = config.include_question or fields.paraphrases is None
        own = config.model_copy(update={"fields": fields, "include_question": asks_itself})
        record = dataclasses.replace(to_record(number, dict(row)), fields=fields)
        questions.append(to_question(record, identify(record, own), own, SOURCE))
    return questions


def _plain(value: Any) -> Any:
    """The value with tuples and NumPy arrays as lists, and NumPy numbers as Python numbers."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(element) for key, element in value.items()}
    return value
