"""What the user can put right, on its way from a worker to the driver.

An error that a worker raises comes out of Ray Data as text in another error, below a traceback or two. So
such an error is none to Ray: it travels down the stream in the place of its shard, and the driver raises it.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar

from flexray.errors import UserError

TOLD = (UserError, OSError)
"""What ends a run with its message alone. Any other error is a bug, which Ray raises."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of TOLD, in the place of what it kept from being made."""

    error: Exception

    @classmethod
    def of(cls, error: Exception) -> Self:
        """A failure that can be pickled. The error's traceback here becomes a note of it, for the log."""
        lines = "".join(traceback.format_exception(error))
        try:
            portable = pickle.loads(pickle.dumps(error))
        except Exception:  # an OSError of some library that wants more arguments than it keeps
            portable = OSError(str(error))
        portable.add_note(f"In a worker:\n{lines}")
        return cls(portable)


def or_failure(call: Callable[[], T]) -> T | Failure:
    """What `call` returns, or why it cannot."""
    try:
        return call()
    except BrokenPipeError:  # to a command that would be the reader of its output
        raise
    except TOLD as e:
        return Failure.of(e)
