"""What people read on a terminal: a console, texts from data that a terminal must not obey, and times."""

from __future__ import annotations

import sys

from rich.console import Console


def standard_output(log_width: int = 120) -> Console:
    """A console for standard output.

    Args:
        log_width: columns of a file or pipe, which has no width of its own; rich would take 80.
    """
    return Console(width=None if sys.stdout.isatty() else log_width)


def printable(text: object) -> str:
    """The text with control characters, and those that reorder or hide others, spelled out; lines stay.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in str(text))


def duration(seconds: float | None) -> str:
    """A time span in its two largest units; None: unknown.

    >>> [duration(s) for s in (0.25, 59.94, 61, 3725, 90_000, None)]
    ['0.2 s', '59.9 s', '1 min 01 s', '1 h 02 min', '1 d 01 h', '–']
    """
    if seconds is None:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for large, small, of, each in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if whole >= of:
            return f"{whole // of} {large} {whole % of // each:02d} {small}"
    raise AssertionError(seconds)
