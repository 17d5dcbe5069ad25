"""How one row was answered: the values that `explain` gathers and the reports show."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from flexray.engine.generation import Generation
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
class SegmentTokens:
    """A segment of the stream, its tokens in order."""

    name: str  # see flexray.masks.stream
    tokens: tuple[Token, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A possible next token."""

    id: int
    text: str
    probability: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Step(Candidate):
    """One generated token, as the dense pass sees it.

    Probabilities are the softmax of the step's logits, of the fused ones where sequences are fused;
    with method max they are the largest of each token's probabilities, which sum to more than 1.
    """

    rank: int  # in the dense pass; 1: nothing is better, so it agrees with the engine
    gap: float  # log probability by which the dense pass's best token is ahead of this one; 0.0 at rank 1
    top: tuple[Candidate, ...]  # best first


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SequenceAttention:
    """What a sequence attends to: T steps, all layers, P segments."""

    paraphrase: int | None  # the only one it attends to, from 1; 0: none; None: all, or a draw's
    weight: float  # in the fusion; 1.0 without one
    segments: tuple[SegmentTokens, SegmentTokens]  # its answer prefix and its answer
    attention_by_layer: np.ndarray  # float32 [T, layers, P], mean of heads; sums to 1 over the segments

    @property
    def attention(self) -> np.ndarray:
        """[T, P], the mean of heads and layers."""
        mean: np.ndarray = self.attention_by_layer.mean(1)
        return mean


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ExplainedAnswer:
    """One answer of the engine, checked by the dense pass."""

    generation: Generation
    text: str
    draw: SamplingParams | None  # how its tokens were drawn; None: each is the best one
    steps: tuple[Step, ...]  # empty if the engine could not answer
    sequences: tuple[SequenceAttention, ...]  # several if they are fused; empty if it could not answer

    @property
    def is_greedy(self) -> bool:
        """Whether each token was chosen as the best one: neither drawn, nor that of a candidate."""
        return self.draw is None and self.generation.candidate is None

    @property
    def disagreements(self) -> list[int]:
        """Steps, from 1, at which the dense pass has another best token; none unless greedy."""
        return [n for n, step in enumerate(self.steps, start=1) if step.rank > 1 and self.is_greedy]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Explanation:
    """Everything `flexray explain` finds."""

    flexray: str  # version
    model: str  # folder
    device: str
    dtype: str
    row: dict[str, Any]  # ROW_SCHEMA, as a run would write it; its shard_id is ""
    fusion: Fusion | None
    segments: tuple[SegmentTokens, ...]  # those that all sequences share, in stream order
    answers: tuple[ExplainedAnswer, ...]  # several if each paraphrase has an answer of its own
    chosen: int  # index of the answer that is the row's prediction
    committed: str  # the row as the output folder has it, in words; or why it has none
    same_tokens: bool | None  # whether that row's tokens are those of this one; None: there is none

    @property
    def segment_names(self) -> tuple[str, ...]:
        """[P]: what the attention of a sequence is divided among, its own two segments last."""
        return (*(segment.name for segment in self.segments), "answer_prefix", "answer")

    def to_json(self) -> str:
        """All of it; `attention` is [step][segment], `attention_by_layer` is [step][layer][segment]."""
        tree = dataclasses.asdict(self) | {"segment_names": self.segment_names}
        for answer in tree["answers"]:
            for sequence in answer["sequences"]:
                by_layer = sequence["attention_by_layer"].astype(float)
                sequence["attention"] = by_layer.mean(1).round(SHARE_DIGITS).tolist()
                sequence["attention_by_layer"] = by_layer.round(SHARE_DIGITS).tolist()
        return json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
