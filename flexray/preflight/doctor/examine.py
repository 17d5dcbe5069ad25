"""Make checks one after the other; one that fails, in whatever way, leaves the others alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from flexray.config import RunConfig, load_config
from flexray.errors import UserError
from flexray.storage import redact

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. warn: a run works, but not as well as it could. fail: it does not work."""

    status: Status
    what: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finding, and the check it is of."""

    check: str
    status: Status
    what: str
    advice: str


Check = Callable[[RunConfig | None], Iterable[Finding]]


def examine(
    checks: Mapping[str, Check], paths: Sequence[str] = (), overrides: Sequence[str] = ()
) -> Iterator[Outcome]:
    """Make the checks, in order; yields each finding as soon as it is there.

    Args:
        paths, overrides: of the configuration, as for `load_config`. No paths: without one.
    """
    config = None
    if paths:
        try:
            config = load_config(paths, overrides)
            yield Outcome("config", "pass", ", ".join(paths), "")
        except UserError as e:
            yield Outcome("config", "fail", redact(str(e)), "The checks of what it names are left out.")
    for name, check in checks.items():
        try:
            for finding in check(config):
                yield Outcome(name, finding.status, redact(finding.what), finding.advice)
        except (UserError, OSError) as e:
            yield Outcome(name, "fail", redact(str(e)), "")
        except Exception as e:  # any other: the machine is what is in doubt
            yield Outcome(name, "fail", redact(f"the check broke off: {type(e).__name__}: {e}"), "")
