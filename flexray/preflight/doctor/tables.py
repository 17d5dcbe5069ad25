"""The doctor's findings on the console, each as soon as it is there."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flexray.console.terminal import printable
from flexray.preflight.doctor.examine import Outcome

LOG_WIDTH = 120
STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red"}
NAME_WIDTH = 9  # of a check


def print_outcomes(outcomes: Iterable[Outcome], *, console: Console | None = None) -> bool:
    """Print a line for each finding, what to do below it, and the counts last.

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
