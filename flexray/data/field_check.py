"""Whether the records of a file have the wanted fields at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flexray.data.records import MISSING, Record, lookup
from flexray.data.required_fields import SHOWN, RequiredFields
from flexray.errors import DataError
from flexray.storage import redact


class FieldCheck:
    """Counts a file's objects and looks for each wanted field until one record has it."""

    def __init__(self, path: str, required: RequiredFields) -> None:
        self._path = path
        self._wanted = required
        self._unseen = list(dict.fromkeys(p for form in required.forms for p in form))
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
        if self._unseen:
            value = record.value
            self._unseen = [path for path in self._unseen if lookup(value, path) is MISSING]
            if self._unseen and len(self._known) <= SHOWN:
                self._known.update(dict.fromkeys(_paths(value)))

    def check(self) -> None:
        """Raises DataError if there are rows, but no object among them, or none with a wanted field."""
        if self._rows and not self._objects:
            raise DataError(
                f"{redact(self._path)}: none of the {self._rows} row(s) read is a JSON object; row 1: "
                f"{self._first_problem}. Check {self._wanted.named} and data.format."
            )
        if self._rows:
            has = set(self._wanted.paths()).difference(self._unseen)
            self._wanted.check(self._path, has, self._known)


def _paths(value: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, child in value.items():
        yield prefix + key
        if isinstance(child, dict):
            yield from _paths(child, f"{prefix}{key}.")
