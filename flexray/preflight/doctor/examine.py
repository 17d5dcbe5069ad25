"""Make checks one after the other and print the results; one that fails does not stop the others."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flexray.config import RunConfig, load_config
from flexray.console.terminal import printable
from flexray.errors import UserError
from flexray.storage import redact

Status = Literal["pass", "warn", "fail"]
STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red"}
LOG_WIDTH = 120
NAME_WIDTH = 9  # of a check


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found. warn: a run works, but not as well as it could. fail: it does not work."""

    status: Status
    what: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A result, with the name of its check."""

    check: str
    status: Status
    what: str
    advice: str


Check = Callable[[RunConfig | None], Iterable[CheckResult]]


def examine(
    checks: Mapping[str, Check], paths: Sequence[str] = (), overrides: Sequence[str] = ()
) -> Iterator[Outcome]:
    """Make the checks, in order; yields each result as soon as it is there.

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
            for result in check(config):
                yield Outcome(name, result.status, redact(result.what), result.advice)
        except (UserError, OSError) as e:
            yield Outcome(name, "fail", redact(str(e)), "")
        except Exception as e:  # any other may be the fault of the machine, which is being examined
            yield Outcome(name, "fail", redact(f"the check broke off: {type(e).__name__}: {e}"), "")


def print_outcomes(outcomes: Iterable[Outcome], *, console: Console | None = None) -> bool:
    """Print a line for each outcome as soon as it is there, the advice below it, and the counts last.

    Args:
        console: where to print. None: standard output.

    Returns:
        Whether none has failed.
    """
    console = console or Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    counts: Counter[str] = Counter()
    for outcome in outcomes:
        counts[outcome.status] += 1
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=4)
        grid.add_column(width=NAME_WIDTH)
        grid.add_column(overflow="fold")
        status = Text(outcome.status, STYLES[outcome.status])
        grid.add_row(status, outcome.check, Text(printable(outcome.what)))
        if outcome.advice:
            grid.add_row("", "", Text(printable(outcome.advice), "bold"))
        console.print(grid)
    console.print(", ".join(f"{counts[status]} {status}" for status in STYLES))
    return not counts["fail"]
