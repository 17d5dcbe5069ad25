"""What may be shown on a terminal: names, ids and texts come from data, and a terminal obeys some of them."""

from __future__ import annotations


def printable(text: object) -> str:
    """The text with control characters, and those that turn or hide others, spelled out; lines stay.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in str(text))
