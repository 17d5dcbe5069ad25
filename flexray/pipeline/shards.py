"""What travels from stage to stage. Light to import: not every worker process needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flexray.data.question import Question, ShardSpec
from flexray.engine.generation import Generation
from flexray.prompts.prompt import Prompt


@dataclass(frozen=True, slots=True)
class PreparedShard:
    """A shard, or some of its rows, ready to be answered; `prompts[i]` is None where `questions[i]` has an
    error."""

    spec: ShardSpec
    questions: list[Question]
    prompts: list[Prompt | None]


@dataclass(frozen=True, slots=True)
class AnsweredShard:
    """A shard's questions, for each what each method answered, and how the engine fared with it."""

    spec: ShardSpec
    questions: list[Question]
    answers: list[tuple[tuple[Generation, ...], ...]]  # [question][method][answer]
    texts: list[tuple[tuple[str, ...], ...]]  # of the same shape
    prompt_tokens: list[int]
    engine_stats: dict[str, Any]
    seconds: float
