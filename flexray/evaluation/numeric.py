"""Numbers as numbers: "1,000", "1000" and "1000.0" are the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache

MAX_DIGITS = 400
"""A longer number is none."""
_SPACE = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
"""A space that groups thousands; a plain one may stand between two numbers."""
_NUMBER = re.compile(
    r"(?<![\w.,])(?P<sign>[-+])?(?P<currency>[$£¥€]\s?)?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?:[eE](?P<exponent>[-+]?\d{1,3})(?!\w))?"
    r"(?:\s?(?P<scale>thousand|million|billion|trillion)\b)?",
    re.IGNORECASE,
)
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_WORD = re.compile(r"[^\W\d_]")


def numeric_match(prediction: str, answers: Iterable[str], *, tolerance: float = 0.0) -> bool | None:
    """Whether the first number of the prediction is that of any accepted answer; None: none is a number.

    An answer is a number if it begins with one; a unit may follow, and is not compared: "5 km" is also
    right for "5 miles". Commas group thousands, a point is decimal, "5 million" is 5,000,000.

    Args:
        tolerance: how far the number may be from the accepted one, as a share of that.

    >>> numeric_match("It is 1,000 km.", ["1000.0"])
    True
    """
    wanted = [number for answer in answers if (number := _first(answer, at_start=True)) is not None]
    if not wanted:
        return None
    found = _first(prediction)
    return found is not None and any(
        found == number or abs(found - number) <= Decimal(str(tolerance)) * abs(number) for number in wanted
    )


@lru_cache(maxsize=16_384)
def _first(text: str, *, at_start: bool = False) -> Decimal | None:
    """The first number of a text; None: there is none.

    at_start: only if no letter stands before it.
    """
    text = unicodedata.normalize("NFKC", _SPACE.sub("", text)).replace("\u2212", "-")
    match = _NUMBER.search(text)
    if match is None or len(match["digits"]) > MAX_DIGITS:
        return None
    if at_start and _WORD.search(text[: match.start()]):
        return None
    exponent = int(match["exponent"] or 0) + _SCALES.get((match["scale"] or "").lower(), 0)
    number = Decimal(f"{match['digits'].replace(',', '')}E{exponent}")
    return number.copy_negate() if match["sign"] == "-" else number
