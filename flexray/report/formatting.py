"""How reports show numbers, times and texts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

NOTHING = "–"
MAX_TEXT = 500  # characters of a text that comes from data


def count(number: float) -> str:
    """A whole number, with a comma at each thousand."""
    return f"{number:,.0f}"


def percent(share: float | None) -> str:
    """In percent; what is not 0 is not shown as 0.

    >>> [percent(s) for s in (None, 0.0, 0.0001, 0.5, 0.9999, 1.0)]
    ['–', '0.0%', '<0.1%', '50.0%', '>99.9%', '100.0%']
    """
    if share is None:
        return NOTHING
    if 0 < share < 0.0005:
        return "<0.1%"
    return ">99.9%" if 0.9995 <= share < 1 else f"{100 * share:.1f}%"


def share(part: float, whole: float) -> str:
    """A part of a whole, in percent.

    >>> share(1, 4), share(0, 0)
    ('25.0%', '–')
    """
    return percent(part / whole if whole else None)


def fixed(number: float | None) -> str:
    """With one decimal, so that a column lines up; a small number with the digits that it needs."""
    return NOTHING if number is None else f"{number:,.2g}" if 0 < number < 0.1 else f"{number:,.1f}"


def moment(when: float | str) -> str:
    """A time in UTC, from seconds since 1970 or from ISO 8601."""
    time = datetime.fromisoformat(when) if isinstance(when, str) else datetime.fromtimestamp(when, UTC)
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def cut(text: str, length: int = MAX_TEXT) -> str:
    """The text; of a long one its beginning, and how much is left out."""
    return text if len(text) <= length else f"{text[:length]} … ({len(text) - length:,} more characters)"


def one_line(text: str) -> str:
    r"""A token's text on one line: "\n" and other control characters as escapes.

    >>> one_line(" a\n")
    ' a\\n'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def leaves(tree: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, str]]:
    """Key and value of each leaf; lists count as leaves.

    >>> list(leaves({"prompt": {"answer_prefix": "A:"}, "k": [1]}))
    [('prompt.answer_prefix', '"A:"'), ('k', '[1]')]
    """
    for key, value in tree.items():
        inner = f"{name}.{key}" if name else key
        if isinstance(value, Mapping) and value:
            yield from leaves(value, inner)
        else:
            yield inner, json.dumps(value, ensure_ascii=False)
