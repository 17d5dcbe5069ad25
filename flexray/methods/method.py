"""What a method is to the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from flexray.masks.layout import Trunk, View
from flexray.types import Prompt

Fusion = Literal["mean", "max"]
"""How branches that answer as one choose each token. mean: the weighted mean of their logits; max: the
elementwise maximum of their probabilities (softmax each)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A trunk to prefill, and the branches that answer from it."""

    name: str
    """The `method` of each output row."""
    trunk: Trunk
    views: Callable[[Prompt], tuple[View, ...]]
    """One for each branch of a prompt."""
    fusion: Fusion | None = None
    """None: each branch is an answer of its own."""
    weights: Callable[[Prompt], tuple[float, ...]] | None = None
    """Of the branches, which sum to 1; None: equal."""
    needs_confidences: bool = False
    biased: bool = False
    """Whether a view may have a bias."""
