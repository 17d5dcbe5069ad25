"""What the checks of `plan` and `doctor` find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from flexray.errors import UserError
from flexray.storage import redact

T = TypeVar("T")
Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found. warn: a run works, but not as well as it could. fail: it does not work, a method
    would answer nothing, or the run would end above its limits."""

    status: Status
    what: str
    advice: str = ""
    check: str = ""
    """Its name."""


def passed(what: str) -> CheckResult:
    """A check that found no fault."""
    return CheckResult("pass", what)


def warn(what: str, advice: str = "") -> CheckResult:
    """A run works, but not as well as it could."""
    return CheckResult("warn", what, advice)


def fail(what: str, advice: str = "") -> CheckResult:
    """A run does not work."""
    return CheckResult("fail", what, advice)


@dataclass(slots=True)
class Problems:
    """The warnings and failures found so far, in order: a plan names them all, where a run stops at the
    first. Their advice is part of the text, as in a run's own message."""

    found: list[CheckResult] = field(default_factory=list)

    def fail(self, check: str, text: str) -> None:
        """Note what would keep the run from being done."""
        self.found.append(CheckResult("fail", redact(text), check=check))

    def warn(self, check: str, text: str) -> None:
        """Note what the user should know before it is done."""
        self.found.append(CheckResult("warn", redact(text), check=check))

    def attempt(self, check: str, call: Callable[[], T]) -> T | None:
        """What `call` returns; None, with a failure noted, if it raises a fault which would end the run."""
        try:
            return call()
        except (UserError, OSError) as e:
            self.fail(check, str(e))
            return None
