"""The interface of dataset adapters, and helpers to write one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

from flexray.config.data import DataConfig, Fields
from flexray.data.identity import text_problem
from flexray.data.record import FieldFault, Record, found, lookup
from flexray.data.required_fields import RequiredFields

PARTS = "(parts)"
"""The field of a grouped record that lists the parts of all its records, as tuples."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which records make up one row."""

    by: str  # the field that is the same in all of them
    part: tuple[str, ...]  # the fields that differ; all others are taken from the first record


class DatasetAdapter(ABC):
    """Turns the records of a data set into its rows, one by one.

    Raises:
        DataError: on opening, for an auxiliary file that cannot be used.
    """

    required: RequiredFields
    """The fields that its files must have; of Parquet and Arrow no others are read."""
    grouping: Grouping | None = None
    """Set if a row is spread over several records; `adapt` then gets one grouped record, see PARTS."""

    def __init__(self, config: DataConfig) -> None:
        self.config = config

    @abstractmethod
    def adapt(self, record: Record, file: str) -> Record:
        """The row of one record: its value, its fields and its faults. Never raises.

        The result must depend on the record, the file's name and the configuration alone: the scan and each
        worker call it. A value of a wrong type stays as it is, under its name in the source, or becomes a
        fault.

        Args:
            record: `value` is not None.
            file: path or URL of the source file.
        """


class FieldReader:
    """Reads the values of one record and collects what is wrong with them."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.faults: list[FieldFault] = [*record.faults]

    def get(self, path: str) -> Any:
        return lookup(self._record.value, path)

    def text(self, path: str) -> str:
        """A usable string; "", with a fault, if there is none."""
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
        """The record with these values beside its own."""
        assert self._record.value is not None
        value = self._record.value | values
        return replace(self._record, value=value, fields=fields, faults=tuple(self.faults))


def distinct(texts: list[Any]) -> list[Any]:
    """Each string once, in order. Other values are kept: the row's check reports them."""
    seen: set[str] = set()
    kept = []
    for text in texts:
        if isinstance(text, str):
            if text in seen:
                continue
            seen.add(text)
        kept.append(text)
    return kept
