"""One answer of the engine. Light to import: what reads answers needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flexray.config import Backend

FinishReason = Literal["eos", "newline", "stop", "length", "candidate", "error"]


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log-probabilities of an answer's n tokens, in the distributions that they were chosen from, before
    `repetition_penalty`, `min_new_tokens` and sampling change these; see docs/algorithm.md."""

    chosen: tuple[float, ...]  # n: of each token
    top_token_ids: tuple[tuple[int, ...], ...]  # n x k: the most likely tokens, the best first
    top: tuple[tuple[float, ...], ...]  # n x k: theirs


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """One answer to a Prompt, and how it was computed."""

    token_ids: tuple[int, ...] = ()  # generated ids, the stop token included
    logprobs: Logprobs | None = None  # None: not asked for, or an error
    finish_reason: FinishReason
    backend_requested: Backend
    backend_used: Backend | Literal[""] = ""  # "" when no backend produced an answer
    fallback_reason: str = ""
    attempts: int = 1
    error: str = ""
    subset: tuple[int, ...] = ()  # indices of the paraphrases that a draw was made from; else ()
    candidate_scores: tuple[float, ...] | None = None  # of each candidate; None: it was generated

    @property
    def candidate(self) -> int | None:
        """Index of the candidate that this is, the first of those of the highest score."""
        scores = self.candidate_scores
        return None if scores is None else scores.index(max(scores))
