"""The fields that a data set's files must have, and the error for a file that lacks them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from flexray.config.data import Fields
from flexray.data.archives import way_out
from flexray.data.record import MISSING, Record, field_paths, lookup
from flexray.errors import DataError, first_few
from flexray.storage import redact

SHOWN = 40


@dataclass(frozen=True, slots=True)
class RequiredFields:
    """Dotted paths. A file must have all fields of one of the `forms`, and may have fields of `also`."""

    forms: tuple[tuple[str, ...], ...]
    also: tuple[str, ...] = ()
    named: str = "data.files"  # the key of the files in the configuration
    kind: str = ""  # the kind of the data set; "": the fields are configured
    under: str = ""  # format json: the key of an object that may have the array of records
    inside: tuple[str, ...] = ()  # format json: keys of lists, one in the other, that have the records
    everything: bool = False  # read all columns of a file that has columns
    roles: tuple[tuple[str, str], ...] = ()  # path and its key in data.fields, if it is configured

    def paths(self) -> tuple[str, ...]:
        """All paths, each once."""
        return tuple(dict.fromkeys(path for form in (*self.forms, self.also) for path in form))

    def check(self, file: str, has: Collection[str], known: Iterable[str]) -> None:
        """Raises DataError if no form is whole.

        Args:
            has: the required paths that the file has, and possibly others.
            known: the paths that the file has, for the message.
        """
        lacking = [[path for path in form if path not in has] for form in self.forms]
        if all(lacking):
            raise self._error(redact(file), min(lacking, key=len)[0], list(known))

    def _error(self, file: str, path: str, known: list[str]) -> DataError:
        shown = first_few(map(repr, known), SHOWN)
        if role := dict(self.roles).get(path):
            null = "" if role == "question" else ", or to null if there is none"
            advice = f"Set data.fields.{role} to one of: {shown or '(none)'}{null}."
            return DataError(f"{file}: no record has the field {path!r}. {advice}")
        needed = " or ".join(", ".join(map(repr, form)) for form in self.forms)
        what = f" by kind {self.kind}" if self.kind else ""
        return DataError(
            f"{file}: no record has the field {path!r}. Needed{what}: {needed}; found: {shown or '(none)'}. "
            f"Correct {self.named}" + (", or set data.kind." if self.kind else ".")
        )


def of_fields(fields: Fields) -> RequiredFields:
    """All configured fields are required."""
    roles = list(field_paths(fields).items())
    if isinstance(fields.paraphrases, tuple):
        roles = [pair for pair in roles if pair[0] != "paraphrases"]
        roles += [("paraphrases", path) for path in fields.paraphrases]
    form = tuple(path for _, path in roles)
    return RequiredFields((form,), roles=tuple((path, role) for role, path in reversed(roles)))


class FieldCheck:
    """Checks that each required field of a file is in at least one of its records. Parts of a file are looked
    at by themselves, and then merged."""

    def __init__(self, path: str, required: RequiredFields) -> None:
        self.path = path
        self._required = required
        self._unseen = list(dict.fromkeys(p for form in required.forms for p in form))
        self._known: dict[str, None] = {}  # used as an ordered set
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

    def add_complete(self, count: int) -> None:
        """So many records that have all required fields."""
        self._rows += count
        self._objects += count
        if count:
            self._unseen = []

    def merged(self, later: FieldCheck) -> FieldCheck:
        """What was found in this and in a later part of the same file."""
        both = FieldCheck(self.path, self._required)
        both._first_problem = self._first_problem or later._first_problem
        both._rows = self._rows + later._rows
        both._objects = self._objects + later._objects
        both._unseen = [path for path in self._unseen if path in later._unseen]
        both._known = self._known | later._known
        return both

    def check(self) -> None:
        """Raises DataError if there are rows but none is an object, or none has a required field."""
        if self._rows and not self._objects:
            raise DataError(
                f"{redact(self.path)}: none of the {self._rows} row(s) can be read; row 1: "
                f"{self._first_problem}. Check {self._required.named} and data.format.{way_out(self.path)}"
            )
        if self._rows:
            has = set(self._required.paths()).difference(self._unseen)
            try:
                self._required.check(self.path, has, self._known)
            except DataError as e:
                raise DataError(f"{e}{way_out(self.path)}") from e


def _paths(value: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, child in value.items():
        yield prefix + key
        if isinstance(child, dict):
            yield from _paths(child, f"{prefix}{key}.")
