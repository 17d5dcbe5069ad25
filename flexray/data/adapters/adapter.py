"""The interface of dataset adapters, and helper functions for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flexray.config.data import DataConfig, Fields
from flexray.data.identity import id_problem, short_digest, text_problem
from flexray.data.record import MISSING, FieldFault, Record, found, lookup
from flexray.data.required_fields import RequiredFields

PARTS = "(parts)"
"""The field of a grouped record with the parts of all its records, a list of tuples."""

OF_QUESTION = "id (made from the question)"
"""The field with the id of a record that has none; see `id_of_question`."""


Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which records make up one row.

    Attributes:
        key: what the records of a row have in common, of a record's value; None: it is a row by itself.
        part: the fields that differ; all other fields are taken from the first record.
    """

    key: Callable[[dict[str, Any]], Key | None]
    part: tuple[str, ...]


def first_id(value: dict[str, Any], paths: Sequence[str]) -> Key | None:
    """The first of these fields that a record has and that can be an id, with its path. Raises nothing."""
    found = ((path, lookup(value, path)) for path in paths)
    return next(((path, str(id_)) for path, id_ in found if id_ is not MISSING and not id_problem(id_)), None)


class DatasetAdapter(ABC):
    """Converts the records of a data set to its rows, one by one.

    Raises:
        DataError: from the constructor, if an auxiliary file cannot be used.
    """

    required: RequiredFields
    """The fields that its files must have. Other columns of Parquet and Arrow files are not read."""
    grouping: Grouping | None = None
    """Set if a row is spread over several records. Then `adapt` gets one grouped record; see PARTS."""

    def __init__(self, config: DataConfig) -> None:
        self.config = config

    @abstractmethod
    def adapt(self, record: Record, file: str) -> Record:
        """The row of one record: its value, fields and faults. Must not raise.

        The result must depend only on the record, the file's name and the configuration: the parts of a data
        set are read in any order and in any process. A value of a wrong type is kept, under its name in the
        source, or becomes a fault.

        Args:
            record: `value` is not None.
            file: path or URL of the source file.
        """


class FieldReader:
    """Reads the values of one record and collects their faults."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.faults: list[FieldFault] = [*record.faults]

    def get(self, path: str) -> Any:
        return lookup(self._record.value, path)

    def text(self, path: str) -> str:
        """The string at a path; if it is not usable text, "" and a fault is recorded."""
        value = self.get(path)
        if not isinstance(value, str):
            self.fault(path, f"a string is needed, not {found(value)}", "Write it as a string.")
            return ""
        if problem := text_problem(value, "the text"):
            self.fault(path, problem, "Give the row this text.")
            return ""
        return value

    def fault(self, path: str, problem: str, advice: str) -> None:
        self.faults.append(FieldFault(path, self.get(path), problem, advice))

    def row(self, fields: Fields, **values: Any) -> Record:
        """The record with these values in addition to its own."""
        assert self._record.value is not None
        value = self._record.value | values
        return replace(self._record, value=value, fields=fields, faults=tuple(self.faults))


def id_of_question(question: str) -> dict[str, str]:
    """The value of OF_QUESTION: the beginning of the question's sha256; none of an empty one."""
    return {OF_QUESTION: short_digest(question.encode())} if question else {}


def distinct(texts: list[Any]) -> list[Any]:
    """Each string once, in order. Other values are kept, so that the check of the row reports them."""
    seen: set[str] = set()
    kept = []
    for text in texts:
        if isinstance(text, str):
            if text in seen:
                continue
            seen.add(text)
        kept.append(text)
    return kept
