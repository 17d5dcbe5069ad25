"""How good a prediction is, by each metric: a number from 0 to 1. `register_metric` adds one."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from flexray.config.plugins import load_entry_points
from flexray.errors import ConfigError

Metric = Callable[[str, Sequence[str]], float]
"""From a prediction and its accepted answers to a number from 0 to 1; NaN where the metric does not apply."""

LANGUAGE = "en"
CACHED_TEXTS = 16_384  # the methods of a question share its answers, and often their predictions
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_ASCII_PUNCTUATION = frozenset(string.punctuation)


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


def _holds(words: Sequence[str], run: Sequence[str]) -> bool:
    if not run:
        return not words
    return any(words[at : at + len(run)] == run for at in range(len(words) - len(run) + 1))


def _first_word_match(prediction: str, answers: Sequence[str]) -> float:
    found = first_word_match(prediction, answers)
    return math.nan if found is None else found


METRICS: dict[str, Metric] = {
    "exact_match": exact_match,
    "f1": token_f1,
    "lemma_match": lambda prediction, answers: lemma_match(prediction, answers, find_lemmatizer()),
    "first_word_match": _first_word_match,
}
"""By name, in the order in which `evaluate` prints them; it has a lemmatizer of its own for `lemma_match`."""


def register_metric(name: str, function: Metric) -> None:
    """Have `evaluate` print, compare and write another metric.

    Raises:
        ConfigError: there is a metric of this name.
    """
    if name in METRICS:
        raise ConfigError(f"metric {name!r}: there is one of this name already. Register it by another one.")
    METRICS[name] = function


@lru_cache(maxsize=1)
def load_installed_metrics() -> None:
    """Register the metrics of installed packages, by their entry points; once in a process."""
    load_entry_points("metrics", register_metric)


def find_metric(name: str) -> Metric:
    """A registered metric.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in METRICS:
        load_installed_metrics()
    if name not in METRICS:
        raise ConfigError(f"metric {name!r} is unknown. Known: {', '.join(METRICS)}.")
    return METRICS[name]


def measure(name: str, function: Metric, prediction: str, answers: Sequence[str]) -> float:
    """A metric of one prediction, checked.

    Raises:
        ConfigError: it is no number from 0 to 1, nor NaN.
    """
    found = function(prediction, answers)
    try:
        value = float(found)
    except (TypeError, ValueError):
        value = -1.0
    if value < 0 or value > 1:
        raise ConfigError(
            f"metric {name!r}: gives {str(found)[:80]!r} for the prediction {prediction[:80]!r}. It must "
            "give a number from 0 to 1, or NaN where it does not apply."
        )
    return value
