"""Whether a prediction is one of the accepted answers: exact match after SQuAD's normalisation."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_ASCII_PUNCTUATION = frozenset(string.punctuation)


def normalize_answer(text: str) -> str:
    """Normalise as SQuAD does (Rajpurkar et al. 2016), after Unicode NFKC.

    Lower case; no punctuation; no articles; single spaces. SQuAD knows ASCII punctuation only; here
    Unicode's goes as well. A text of which nothing is left stays itself, stripped and casefolded, so
    that the answers "The" and "?" can be told from an empty one.

    >>> normalize_answer("  The  Eiffel-Tower, ")
    'eiffeltower'
    >>> normalize_answer("The")
    'the'
    """
    text = unicodedata.normalize("NFKC", text)
    kept = "".join(c for c in text.lower() if not _is_punctuation(c))
    return " ".join(_ARTICLES.sub(" ", kept).split()) or text.strip().casefold()


def exact_match(prediction: str, answers: Iterable[str]) -> bool:
    """Whether the prediction equals any accepted answer, both normalised. No answers: never."""
    found = normalize_answer(prediction)
    return any(found == normalize_answer(answer) for answer in answers)


def _is_punctuation(char: str) -> bool:
    return char in _ASCII_PUNCTUATION or unicodedata.category(char).startswith("P")
