"""What a method is to the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from flexray.masks.layout import Trunk, View
from flexray.types import Prompt

Choice = Literal["greedy", "sample", "nucleus", "mean", "max"]
"""How branches choose each token. greedy: each for itself, the best; sample: each for itself, at random;
nucleus: the same, from the likeliest tokens only (see `Draw`). Those that answer as one choose together:
mean: the best of the weighted mean of their logits; max: of the elementwise maximum of their probabilities
(softmax each)."""

Answers = Literal["one", "paraphrases", "samples", "rated"]
"""What the branches of a row are. one: one answer, however many branches it is made of; paraphrases: one for
each paraphrase; samples: some of the same; rated: for each paraphrase one, and behind it those that it is
compared with. Of several the most frequent counts (see flexray.evaluation.output_rows)."""

DRAWN: frozenset[Choice] = frozenset({"sample", "nucleus"})
TOGETHER: frozenset[Choice] = frozenset({"mean", "max"})


@dataclass(frozen=True, slots=True)
class Draw:
    """How one branch draws its tokens; by the same Draw, the same row draws the same numbers."""

    number: int  # of the draw, in its method
    temperature: float = 0.0  # 0: the best token
    top_p: float = 1.0  # of the choice nucleus
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A trunk to prefill, and the branches that answer from it."""

    name: str
    """The `method` of each output row."""
    trunk: Trunk
    views: Callable[[Prompt], tuple[View, ...]]
    """One for each branch of a prompt."""
    answers: Answers = "one"
    choice: Choice = "greedy"
    draws: Callable[[Prompt], tuple[Draw, ...]] | None = None
    """One for each branch, if they sample."""
    weights: Callable[[Prompt], tuple[float, ...]] | None = None
    """Of the branches, which sum to 1; None: equal."""
    needs_confidences: bool = False
    biased: bool = False
    """Whether a view may have a bias."""
