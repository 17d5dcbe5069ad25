"""Checks: what a run needs, looked at one after the other, and how that is said.

The start of a run, `plan` and `doctor` go through lists of them. All three share those of
`runs/start_checks.py`: a start stops at the first fault, the others name all that they find.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flexray.console.terminal import printable, standard_output
from flexray.errors import UserError
from flexray.storage import redact

S_contra = TypeVar("S_contra", contravariant=True)
S = TypeVar("S")
Status = Literal["pass", "warn", "fail"]
STYLES: dict[Status, str] = {"pass": "green", "warn": "yellow", "fail": "bold red"}
NAME_WIDTH = 11  # of a check


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. warn: a run works, but not as well as it could. fail: it does not work, a method
    would answer nothing, or the run would end above its limits."""

    status: Status
    what: str
    advice: str = ""
    """What to do, if `what` does not say it."""
    check: str = ""
    """The check's name, or another one for this line."""


def passed(what: str, name: str = "") -> Finding:
    """No fault; `what` is worth knowing."""
    return Finding("pass", what, check=name)


def warn(what: str, advice: str = "") -> Finding:
    """A run works, but not as well as it could."""
    return Finding("warn", what, advice)


def fail(what: str, advice: str = "") -> Finding:
    """A run does not work."""
    return Finding("fail", what, advice)


@dataclass(frozen=True, slots=True)
class Check(Generic[S_contra]):
    """One check of a subject, such as a run that is about to start."""

    name: str
    look: Callable[[S_contra], Iterable[Finding] | None]
    """Yields findings, and may keep in the subject what later checks need. Raises UserError or OSError where
    a run would end. None: there is nothing to say."""
    needs: tuple[str, ...] = ()
    """Checks before it that must have been made; it is left out if one of them was broken off."""

    def findings(self, subject: S_contra) -> Iterable[Finding]:
        """What it finds. Raises as `look`."""
        return self.look(subject) or ()


def make_checks(checks: Iterable[Check[S]], subject: S) -> Iterator[Finding]:
    """Make all checks; yields each finding as soon as it is there. A check that raises is a failure, and
    stops only those that need it. Names may repeat."""
    without: set[str] = set()
    for check in checks:
        if without.intersection(check.needs):
            without.add(check.name)
            continue
        try:
            for finding in check.findings(subject):
                yield replace(finding, what=redact(finding.what), check=finding.check or check.name)
        except Exception as e:
            without.add(check.name)
            expected = isinstance(e, UserError | OSError)  # else the fault may be the machine's
            what = str(e) if expected else f"the check broke off: {type(e).__name__}: {e}"
            yield Finding("fail", redact(what), check=check.name)


def is_ready(findings: Iterable[Finding]) -> bool:
    """Whether none has failed."""
    return all(finding.status != "fail" for finding in findings)


def print_findings(findings: Iterable[Finding], *, console: Console | None = None) -> Sequence[Finding]:
    """Print each finding as soon as it is there, with the advice below it, and the counts last. Nothing in
    them is taken for markup.

    Args:
        console: where to print. None: standard output.

    Returns:
        All of them.
    """
    console = console or standard_output()
    seen = []
    for finding in findings:
        seen.append(finding)
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=4)
        grid.add_column(width=NAME_WIDTH)
        grid.add_column(overflow="fold")
        grid.add_row(Text(finding.status, STYLES[finding.status]), finding.check, _text(finding.what))
        if finding.advice:
            grid.add_row("", "", _text(finding.advice, "bold"))
        console.print(grid)
    counts = Counter(finding.status for finding in seen)
    verdict = "ready" if is_ready(seen) else "not ready"
    console.print(f"{verdict}: " + ", ".join(f"{counts[status]} {status}" for status in STYLES))
    return seen


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style)
