"""Which fields a kind of data set needs of its files, and what is said of a file that lacks them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from flexray.config.data import Fields
from flexray.data.records import field_paths
from flexray.errors import DataError
from flexray.storage import redact

SHOWN = 40


@dataclass(frozen=True, slots=True)
class RequiredFields:
    """Dotted paths: a file has all those of one form, and perhaps some of `also`."""

    forms: tuple[tuple[str, ...], ...]
    also: tuple[str, ...] = ()
    named: str = "data.files"  # the key of the files in the configuration
    kind: str = ""  # of the data set; "": the fields are configured
    under: str = ""  # format json: the key of the one object that may hold the array of records
    roles: tuple[tuple[str, str], ...] = ()  # path and its key in data.fields, if that is configured

    def paths(self) -> tuple[str, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys(path for form in (*self.forms, self.also) for path in form))

    def check(self, file: str, has: Collection[str], known: Iterable[str]) -> None:
        """Raises DataError if no form is whole.

        Args:
            has: the wanted paths that the file has; it may hold more.
            known: what the file has, for the message.
        """
        lacking = [[path for path in form if path not in has] for form in self.forms]
        if all(lacking):
            raise self._error(redact(file), min(lacking, key=len)[0], list(known))

    def _error(self, file: str, path: str, known: list[str]) -> DataError:
        shown = ", ".join(repr(name) for name in known[:SHOWN]) + (", ..." if len(known) > SHOWN else "")
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
    """All the configured fields."""
    paths = field_paths(fields)
    roles = tuple((path, role) for role, path in reversed(paths.items()))
    return RequiredFields((tuple(paths.values()),), roles=roles)
