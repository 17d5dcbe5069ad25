"""An error that ends the run, passed on in the place of a shard.

Ray Data wraps an error that a worker raises into another error, as text with one or two tracebacks. So an
error that the user can correct is returned instead of raised, and the driver raises it.
"""

from __future__ import annotations

import json
import platform
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self, TypeVar

import pyarrow as pa

from flexray.errors import UserError
from flexray.storage import StorageError

T = TypeVar("T")

FAILURE = pa.struct(
    [
        pa.field("kind", pa.string()),
        pa.field("message", pa.string()),
        pa.field("facts", pa.string()),
        pa.field("notes", pa.list_(pa.string())),
        pa.field("host", pa.string()),
    ]
)
"""The fields of Failure."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A UserError or OSError as text."""

    kind: str
    """The name of its class, if that is a kind of UserError or StorageError, else of the nearest base class
    that is one, or OSError."""
    message: str
    facts: str
    """A JSON object: the error's attributes that are texts."""
    notes: list[str]
    """The last one is the traceback, for the log."""
    host: str
    """The name of the host on which it was raised."""

    @classmethod
    def of(cls, error: UserError | OSError) -> Self:
        """A raised error, which may have notes."""
        lines = "".join(traceback.format_exception(error))
        kinds = _kinds()
        return cls(
            kind=next(_name(base) for base in type(error).__mro__ if _name(base) in kinds),
            message=_printable(str(error)),
            facts=json.dumps({key: value for key, value in vars(error).items() if isinstance(value, str)}),
            notes=[*map(_printable, getattr(error, "__notes__", ())), _printable(f"In a worker:\n{lines}")],
            host=platform.node(),
        )

    def error(self) -> UserError | OSError:
        """The error again, with its notes; its message names the host, if that is not this one. A class that
        this process has not imported becomes UserError."""
        kind = _kinds().get(self.kind, UserError)
        error = kind.__new__(kind)  # not by its constructor, which may take other arguments
        is_here = self.host in ("", platform.node())
        error.args = (self.message if is_here else f"node {self.host}: {self.message}",)
        vars(error).update(json.loads(self.facts))
        for note in self.notes:
            error.add_note(note)
        return error


def or_failure(call: Callable[[], T]) -> T | Failure:
    """The result of `call`, or a Failure if it raises UserError or OSError. Any other error is a bug and is
    raised."""
    try:
        return call()
    except BrokenPipeError:  # the reader of the command's output has closed the pipe
        raise
    except (UserError, OSError) as e:
        return Failure.of(e)


def _kinds() -> dict[str, type[UserError | OSError]]:
    """The classes that an error can arrive as, by name."""

    def kinds(of: type[UserError]) -> Iterator[type[UserError]]:
        yield of
        for kind in of.__subclasses__():
            yield from kinds(kind)

    return {_name(kind): kind for kind in (*kinds(UserError), StorageError, OSError)}


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _printable(text: str) -> str:
    """The text without the surrogates that stand for bytes of a file name: Arrow's texts are UTF-8."""
    return text.encode(errors="backslashreplace").decode()
