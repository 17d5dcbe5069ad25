"""What a kind of data set has to say, and help in saying it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

from flexray.config.data import Fields
from flexray.data.group_by import Grouping
from flexray.data.identity import text_problem
from flexray.data.records import MISSING, Fault, Record, json_type, lookup
from flexray.data.required_fields import RequiredFields


class DatasetAdapter(ABC):
    """How the records of a data set become its rows, one by one."""

    required: RequiredFields
    """The fields that its files must have; of Parquet and Arrow no others are read."""
    grouping: Grouping | None = None
    """If a row is spread over several records: `adapt` then gets it gathered."""

    @abstractmethod
    def adapt(self, record: Record, file: str) -> Record:
        """The row that an object of a file stands for: its value, its fields, what is wrong with it.

        It must depend on the record, the file's name and the configuration alone: the scan and each
        worker call it. A value of a wrong type is left as it is, under the name that the source has for
        it, or becomes a Fault; nothing is raised.
        """


class Checked:
    """Takes the values of one record, and notes what is wrong with them."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.faults: list[Fault] = [*record.faults]

    def get(self, path: str) -> Any:
        return lookup(self._record.value, path)

    def text(self, path: str) -> str:
        """A usable string; "" if it is none, which is noted."""
        value = self.get(path)
        if not isinstance(value, str):
            self.fault(path, f"a string is needed, not {found(value)}", "Write it as a string.")
            return ""
        if problem := text_problem(value, "the text"):
            self.fault(path, problem, "Give the row this text.")
            return ""
        return value

    def fault(self, path: str, problem: str, advice: str) -> None:
        self.faults.append(Fault(path, self.get(path), problem, advice))

    def row(self, fields: Fields, **values: Any) -> Record:
        """The record with these values beside its own."""
        assert self._record.value is not None
        value = self._record.value | values
        return replace(self._record, value=value, fields=fields, faults=tuple(self.faults))


def found(value: Any) -> str:
    """What stands in place of what was needed, for messages."""
    return "a missing field" if value is MISSING else json_type(value)


def distinct(texts: list[Any]) -> list[Any]:
    """Each string once, in order. What is no string is kept, to be reported."""
    seen: set[str] = set()
    kept = []
    for text in texts:
        if isinstance(text, str):
            if text in seen:
                continue
            seen.add(text)
        kept.append(text)
    return kept
