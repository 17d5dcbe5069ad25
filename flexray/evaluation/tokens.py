"""The tokens of normalised text, and the scores that compare them: SQuAD's F1, and the first word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from flexray.evaluation.match import normalize_answer

CACHED_TEXTS = 16_384  # the methods of a question share its answers, and often their predictions


@lru_cache(maxsize=CACHED_TEXTS)
def tokens(text: str) -> tuple[str, ...]:
    """The normalised text, cut at spaces. Empty only for a text of nothing but spaces."""
    return tuple(normalize_answer(text).split())


def token_f1(prediction: str, answers: Iterable[str]) -> float:
    """SQuAD's F1 (Rajpurkar et al. 2016), the best over the answers; 0 without answers.

    The tokens of both sides are compared as multisets. An exact match has F1 1. If one side has no
    tokens, F1 is 1 if both have none, else 0, as in SQuAD 2.0. In a script without spaces a whole
    phrase is one token.
    """
    found = tokens(prediction)
    return max((_f1(found, tokens(answer)) for answer in answers), default=0.0)


def first_word_match(prediction: str, answers: Iterable[str]) -> bool | None:
    """Whether the prediction's first token is an answer of one token; None: no answer has one token.

    For tasks that ask for one word, as MyriadLAMA's `[MASK]` (Zhao et al. 2024): a model that goes on
    talking behind the right word is right.
    """
    words = {tokens(answer) for answer in answers if len(tokens(answer)) == 1}
    return tokens(prediction)[:1] in words if words else None


def _f1(found: tuple[str, ...], wanted: tuple[str, ...]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted))
