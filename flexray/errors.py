"""The errors that a user can cause. Each message says what is wrong, where, and what to do."""

from __future__ import annotations

import itertools
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


class UserError(ValueError):
    """Something the user can put right; the message says how. Exit code 2."""


class ConfigError(UserError):
    """A configuration that cannot be run."""


class DataError(UserError):
    """An input that cannot be read at all, such as a missing file or a field that no record has."""


class ModelError(UserError):
    """A model folder that flexray cannot run."""


class OutputError(UserError):
    """An output folder that cannot be used, or that holds another run."""


class _ShortRepr(reprlib.Repr):
    """A repr that reads only the beginning of a value, which may be huge or hold one list many times."""

    def repr_int(self, number: int, level: int) -> str:
        """Python refuses to write thousands of digits in decimal."""
        return f"{number:#x}" if number.bit_length() > 1000 else repr(number)


def shown(value: Any, most: int = 120) -> str:
    """The beginning of a value's repr, at most `most` characters long.

    >>> shown({"a": ["b" * 1000]}, 20)
    "{'a': ['bbbbbbbbb..."
    """
    short = _ShortRepr()
    short.maxlevel, short.maxlist, short.maxtuple, short.maxdict = 4, 12, 12, 12
    short.maxstring = short.maxother = 2 * most
    text = short.repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def first_few(texts: Iterable[str], most: int = 3, separator: str = ", ") -> str:
    """The first texts in one line, followed by "..." if there are more.

    >>> first_few(["a", "b", "c", "d"])
    'a, b, c, ...'
    """
    first = list(itertools.islice(texts, most + 1))
    return separator.join(first[:most] + ["..."] * (len(first) > most))


@dataclass(eq=False)
class RowFault(Exception):
    """One bad input row. It becomes an error row; the rest of the run goes on."""

    file: str
    row: int  # 1-based record number in the file
    field: str
    value: Any
    problem: str
    advice: str

    def __str__(self) -> str:
        return (
            f"{self.file}, row {self.row}, field {self.field!r}: {self.problem} "
            f"(value: {shown(self.value)}). {self.advice}"
        )
