"""Answers that are chosen from candidates: each was a sequence of its own whose tokens were given."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from flexray.config import GenerationConfig
from flexray.engine.generation import Generation
from flexray.masks.layout import MAX_ANSWERS


def too_many(sequences: int) -> str:
    """What is wrong with a row that needs so many sequences; "" if nothing is."""
    if sequences <= MAX_ANSWERS:
        return ""
    return (
        f"{sequences} sequences are needed for what the methods ask and each candidate; at most "
        f"{MAX_ANSWERS} of a question can be told apart. Give it fewer candidates."
    )


def best_of_each(said: Sequence[Generation], count: int, config: GenerationConfig) -> Iterator[Generation]:
    """Of each answer the candidate of the highest score, of several the first, with the scores of all.

    Args:
        said: for each answer in turn every candidate, with log-probabilities.
        count: of candidates.
    """
    for start in range(0, len(said), count):
        some = said[start : start + count]
        scores = tuple(score(one, config.length_penalty) for one in some)
        best = max(range(count), key=scores.__getitem__)
        kept = some[best].logprobs if config.logprobs is not None else None
        yield replace(some[best], logprobs=kept, candidate_scores=scores)


def score(said: Generation, length_penalty: float) -> float:
    """The sum of the tokens' log-probabilities, by their number to the power of `length_penalty`."""
    assert said.logprobs is not None
    return math.fsum(said.logprobs.chosen) / float(len(said.token_ids) ** length_penalty)
