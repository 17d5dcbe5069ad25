"""How good a prediction is: what each metric that is built in says of it."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

LANGUAGE = "en"
CACHED_TEXTS = 16_384  # the methods of a question share its answers, and often their predictions
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_ASCII_PUNCTUATION = frozenset(string.punctuation)
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff])"
)
"""A character of a script that writes no spaces between words: Thai, Lao, Burmese, Khmer, kana, Han."""


@lru_cache(maxsize=CACHED_TEXTS)
def normalize_answer(text: str) -> str:
    """Normalise as SQuAD does (Rajpurkar et al. 2016), after Unicode NFKC.

    Lower case; no punctuation; no articles; single spaces. SQuAD knows ASCII punctuation only; here
    Unicode's is removed as well. If nothing is left of a text, the text itself is kept, stripped and
    casefolded, so that the answers "The" and "?" differ from an empty one.

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


@lru_cache(maxsize=CACHED_TEXTS)
def tokens(text: str) -> tuple[str, ...]:
    """The normalised text, cut at spaces. Empty only for a text of nothing but spaces."""
    return tuple(normalize_answer(text).split())


@lru_cache(maxsize=CACHED_TEXTS)
def _words(text: str, *, split: bool) -> tuple[str, ...]:
    """The normalised text's words; each character of a script without spaces is one.

    split: what punctuation joins is two words ("Paris-based"), but in numbers ("3.5"). Else it is one
    ("U.S." and "US").
    """
    text = _punctuation_as_spaces(text) if split else text
    return tuple(_UNSPACED.sub(r" \1 ", normalize_answer(text)).split())


def _punctuation_as_spaces(text: str) -> str:
    def in_number(at: int) -> bool:
        return text[at - 1 : at].isdigit() and text[at + 1 : at + 2].isdigit()

    return "".join(" " if _is_punctuation(c) and not in_number(at) else c for at, c in enumerate(text))


def contains(prediction: str, answers: Iterable[str]) -> bool:
    """Whether an accepted answer stands in the prediction, as whole words and without a gap; both normalised.

    An empty prediction, or an empty answer, matches nothing.

    >>> contains("The capital of France is Paris.", ["paris"])
    True
    >>> contains("a parish", ["Paris"])
    False
    """
    answers = tuple(answers)
    return any(
        bool(wanted := _words(answer, split=split)) and _holds(_words(prediction, split=split), wanted)
        for split in (False, True)
        for answer in answers
    )


def first_line_match(prediction: str, answers: Iterable[str]) -> bool:
    """Exact match of the prediction's first line that is not blank."""
    lines = (line for line in prediction.splitlines() if line.strip())
    return exact_match(next(lines, ""), answers)


def extracted_match(prediction: str, answers: Iterable[str], *, pattern: re.Pattern[str]) -> bool:
    """Exact match of what the pattern finds first in the prediction: its first group that took part in the
    match, or all of it. Nothing found: no match.

    >>> extracted_match("So the answer is 42.", ["42"], pattern=re.compile("answer is (.+)"))
    True
    """
    found = pattern.search(prediction)
    if found is None:
        return False
    return exact_match(next((group for group in found.groups() if group is not None), found[0]), answers)


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
    talking after the right word is right.
    """
    words = {tokens(answer) for answer in answers if len(tokens(answer)) == 1}
    return tokens(prediction)[:1] in words if words else None


def _f1(found: tuple[str, ...], wanted: tuple[str, ...]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted))


@dataclass(frozen=True, slots=True)
class Lemmatizer:
    """Gives the lemmas of a text, token by token; its name says how, and goes into each result."""

    name: str
    lemma: Callable[[str], str]

    def __call__(self, text: str) -> tuple[str, ...]:
        return tuple(self.lemma(token) for token in tokens(text))


PLAIN_TOKENS = Lemmatizer("normalised tokens", str)
"""Every token is its own lemma."""


def find_lemmatizer() -> Lemmatizer:
    """simplemma's English lemmas if that package is installed (extra `lemmas`), else PLAIN_TOKENS."""
    try:
        import simplemma
    except ImportError:
        return PLAIN_TOKENS
    lemmatizer = simplemma.Lemmatizer()
    return Lemmatizer(
        f"simplemma {simplemma.__version__}, {LANGUAGE}",
        lambda token: lemmatizer.lemmatize(token, LANGUAGE).casefold(),
    )


def lemma_match(prediction: str, answers: Iterable[str], lemmatizer: Lemmatizer) -> bool:
    """Whether the prediction's lemmas contain those of any answer, in order and without a gap.

    An exact match always does. An answer without tokens matches only a prediction without any.
    """
    found = lemmatizer(prediction)
    return any(_holds(found, lemmatizer(answer)) for answer in answers)


def lemma_either(prediction: str, answers: Iterable[str], lemmatizer: Lemmatizer) -> bool:
    """Lemma match in either direction: the prediction's lemmas may also stand in an answer's, as "Obama" in
    "Barack Obama". An empty prediction matches nothing."""
    found, answers = lemmatizer(prediction), tuple(answers)
    if not found:
        return False
    return lemma_match(prediction, answers, lemmatizer) or any(
        _holds(lemmatizer(answer), found) for answer in answers
    )


def _holds(words: Sequence[str], run: Sequence[str]) -> bool:
    if not run:
        return not words
    return any(words[at : at + len(run)] == run for at in range(len(words) - len(run) + 1))
