"""Where tables are printed."""

from __future__ import annotations

import sys

from rich.console import Console


def standard_output(log_width: int = 120) -> Console:
    """A console for standard output.

    Args:
        log_width: columns of a file or pipe, which has no width of its own; rich would take 80.
    """
    return Console(width=None if sys.stdout.isatty() else log_width)
