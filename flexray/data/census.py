"""Whether the records of a file have the mapped fields at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from flexray.config import Fields
from flexray.data.records import MISSING, Record, field_paths, lookup
from flexray.types import DataError

_SHOWN = 40


class Census:
    """Counts a file's objects and looks for each mapped field until one record has it."""

    def __init__(self, path: str, fields: Fields) -> None:
        self._path = path
        self._wanted = field_paths(fields)
        self._known: dict[str, None] = {}  # a set that keeps the order of the file
        self._rows = 0
        self._objects = 0
        self._first_problem = ""

    def add(self, record: Record) -> None:
        self._rows += 1
        if record.value is None:
            self._first_problem = self._first_problem or record.problem
            return
        self._objects += 1
        if self._wanted:
            value = record.value
            self._wanted = {r: p for r, p in self._wanted.items() if lookup(value, p) is MISSING}
            if self._wanted and len(self._known) <= _SHOWN:
                self._known.update(dict.fromkeys(_paths(value)))

    def check(self) -> None:
        """Raises DataError if there are rows, but no object among them, or none with a mapped field."""
        if self._rows and not self._objects:
            raise DataError(
                f"{self._path}: none of the {self._rows} row(s) read is a JSON object; row 1: "
                f"{self._first_problem}. Check data.files and data.format."
            )
        if self._rows:
            for role, path in self._wanted.items():
                raise missing_field(self._path, role, path, self._known)


def missing_field(file: str, role: str, path: str, known: Iterable[str]) -> DataError:
    """The error for a mapped field that no record of a file has."""
    names = list(known)
    shown = ", ".join(repr(name) for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    null = "" if role == "question" else ", or to null if there is none"
    advice = f"Set data.fields.{role} to one of: {shown or '(none)'}{null}."
    return DataError(f"{file}: no record has the field {path!r}. {advice}")


def _paths(value: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, child in value.items():
        yield prefix + key
        if isinstance(child, dict):
            yield from _paths(child, f"{prefix}{key}.")
