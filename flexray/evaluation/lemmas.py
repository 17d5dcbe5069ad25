"""Whether a prediction says an answer in another form of its words: contiguous match of lemmas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from flexray.evaluation.tokens import tokens

LANGUAGE = "en"


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
    """Whether the lemmas of any answer stand in the prediction's lemmas, in order and without a gap.

    An exact match always does. An answer without tokens stands only in a prediction without any.
    """
    found = lemmatizer(prediction)
    return any(_holds(found, lemmatizer(answer)) for answer in answers)


def _holds(words: Sequence[str], run: Sequence[str]) -> bool:
    if not run:
        return not words
    return any(words[at : at + len(run)] == run for at in range(len(words) - len(run) + 1))
