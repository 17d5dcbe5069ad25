"""How one row was answered: the values that `explain` gathers and the reports show."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from flexray.config import Backend
from flexray.engine.generation import FinishReason, Generation
from flexray.methods import Fusion, SamplingParams

SHARE_DIGITS = 6
"""Of a share of attention in JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A token of the stream."""

    id: int
    text: str
    position: int  # RoPE


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A part of the stream, its tokens in order."""

    name: str  # "context", "C1", "P1", "answer prefix", "answer"
    tokens: tuple[Token, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A token that could have come next."""

    id: int
    text: str
    probability: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One generated token, as the dense pass sees it.

    Probabilities are the softmax of the step's logits, of the fused ones where paraphrases choose together;
    with method max they are the largest of each token's probabilities, which sum to more than 1.
    """

    id: int
    text: str
    probability: float
    rank: int  # in the dense pass; 1: nothing is better, so it agrees with the engine
    gap: float  # log probability by which the dense pass's best token is ahead of this one; 0.0 at rank 1
    top: tuple[Candidate, ...]  # best first


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Branch:
    """What an answer's queries looked at: T steps, all layers, P parts."""

    paraphrase: int | None  # the only one it looks at, from 1; None: all
    weight: float  # among the branches that choose together
    segments: tuple[Segment, Segment]  # its answer prefix and its answer
    attention: np.ndarray  # float32 [T, layers, P], mean of heads; sums to 1 over the parts

    @property
    def mean_attention(self) -> np.ndarray:
        """[T, P], the mean of heads and layers."""
        mean: np.ndarray = self.attention.mean(1)
        return mean


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Answer:
    """One answer: what the engine generated, and what the dense pass says to it."""

    generation: Generation
    text: str
    draw: SamplingParams | None  # how its tokens were drawn; None: each is the best one
    steps: tuple[Step, ...]  # empty if the engine could not answer
    branches: tuple[Branch, ...]  # several if paraphrases choose each token together

    @property
    def disagreements(self) -> list[int]:
        """Steps, from 1, at which the dense pass says another token; none of an answer drawn at random."""
        if self.draw is not None:
            return []
        return [number for number, step in enumerate(self.steps, start=1) if step.rank > 1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """The row as the output folder has it."""

    shard_id: str
    token_ids: tuple[int, ...]
    prediction: str
    paraphrase_predictions: tuple[str, ...]
    finish_reason: FinishReason
    backend_used: Backend | str
    fallback_reason: str
    error: str
    changed: tuple[str, ...]  # settings of that run that are others now


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Explanation:
    """Everything `flexray explain` finds."""

    flexray: str  # version
    model: str  # folder
    device: str
    dtype: str
    row_id: str
    source_file: str
    source_row: int
    question: str
    accepted: tuple[str, ...] | None  # answers; None: nothing to score against
    method: str
    methods: tuple[str, ...]  # of the recipe
    fusion: Fusion | None  # how sequences choose tokens together
    parts: tuple[str, ...]  # P names: what attention is divided among
    segments: tuple[Segment, ...]  # those that all branches have in common, in stream order
    answers: tuple[Answer, ...]  # several if each paraphrase has an answer of its own
    chosen: int  # index of the answer that is the row's prediction
    paraphrase_predictions: tuple[str, ...]  # of the row, as a run writes it
    correct: bool | None  # exact match; None: an error, or nothing to score against
    committed: Committed | None
    not_committed: str  # why there is no committed row to compare with; "" if there is one

    @property
    def prediction(self) -> str:
        """The row's prediction."""
        return self.answers[self.chosen].text

    @property
    def same_tokens(self) -> bool | None:
        """Whether the tokens of the row's prediction are those that are committed; None: none are."""
        if self.committed is None:
            return None
        return self.answers[self.chosen].generation.token_ids == self.committed.token_ids

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-like values; `attention` is [step][part], `attention_by_layer` is
        [step][layer][part]."""
        tree = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {**tree, "prediction": self.prediction, "same_tokens": self.same_tokens}

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Branch):
        kept = {name: _plain(getattr(value, name)) for name in ("paraphrase", "weight", "segments")}
        return kept | {
            "attention": np.round(value.mean_attention.astype(float), SHARE_DIGITS).tolist(),
            "attention_by_layer": np.round(value.attention.astype(float), SHARE_DIGITS).tolist(),
        }
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
