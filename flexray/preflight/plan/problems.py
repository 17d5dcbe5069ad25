"""What stands in a run's way, collected: a plan names all of it, where a run stops at the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from flexray.errors import UserError
from flexray.storage import redact

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and what to do about it."""

    level: Literal["error", "warning"]
    """error: the run would not start, a method would answer nothing, or the end be above the run's limits."""
    about: str
    text: str


@dataclass(slots=True)
class Problems:
    """Those found so far, in order."""

    found: list[Problem] = field(default_factory=list)

    def error(self, about: str, text: str) -> None:
        """Note what would keep the run from being done."""
        self.found.append(Problem("error", about, redact(text)))

    def warn(self, about: str, text: str) -> None:
        """Note what the user should know before it is done."""
        self.found.append(Problem("warning", about, redact(text)))

    def attempt(self, about: str, call: Callable[[], T]) -> T | None:
        """What `call` returns; None, with an error noted, if that is a fault which would end the run."""
        try:
            return call()
        except (UserError, OSError) as e:
            self.error(about, str(e))
            return None
