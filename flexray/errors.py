"""The errors that a user can cause. Each message says what is wrong, where, and what to do."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
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


def shown(value: Any, most: int = 120) -> str:
    """The beginning of a value's repr, at most `most` characters long. The rest of the value is not read: it
    may be huge, or contain one list many times over.

    >>> shown({"a": ["b" * 1000]}, 20)
    "{'a': ['bbbbbbbbb..."
    """
    text = ""
    for piece in _repr(value, most):
        text += piece
        if len(text) > most:
            return text[: most - 3] + "..."
    return text


def first_few(texts: Iterable[str], most: int = 3, separator: str = ", ") -> str:
    """The first texts in one line, followed by "..." if there are more.

    >>> first_few(["a", "b", "c", "d"])
    'a, b, c, ...'
    """
    first = list(itertools.islice(texts, most + 1))
    return separator.join(first[:most] + ["..."] * (len(first) > most))


def _repr(value: Any, most: int) -> Iterator[str]:
    """The pieces of a repr; long texts are cut."""
    if isinstance(value, dict):
        opening = "{"
        for key, item in value.items():
            yield opening
            yield from _repr(key, most)
            yield ": "
            yield from _repr(item, most)
            opening = ", "
        yield "}" if value else "{}"
    elif isinstance(value, list | tuple):
        yield "[" if isinstance(value, list) else "("
        for number, item in enumerate(value):
            yield ", " if number else ""
            yield from _repr(item, most)
        yield "]" if isinstance(value, list) else ",)" if len(value) == 1 else ")"
    elif isinstance(value, int) and value.bit_length() > 4 * most:
        yield f"{value:#x}"  # Python refuses to write thousands of digits in decimal
    else:
        yield repr(value[: most + 1] if isinstance(value, str | bytes) else value)


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
