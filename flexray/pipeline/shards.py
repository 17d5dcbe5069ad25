"""What travels from stage to stage: a shard, or in its place the failure that ends the run.

An error that a worker raises comes out of Ray Data as text inside another error, below a traceback or two. So
an error that the user can put right is returned instead, and the driver raises it. This module is light to
import: not every worker process needs torch.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from flexray.data.question import Question, ShardSpec
from flexray.engine.generation import Generation
from flexray.errors import UserError
from flexray.prompts.prompt import Prompt

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PreparedShard:
    """A shard, or some of its rows, ready to be answered; `prompts[i]` is None where `questions[i]` has an
    error."""

    spec: ShardSpec
    questions: list[Question]
    prompts: list[Prompt | None]

    @property
    def prompt_tokens(self) -> list[int]:
        """Tokens of each prompt; 0: there is none."""
        return [prompt.num_tokens if prompt else 0 for prompt in self.prompts]


@dataclass(frozen=True, slots=True)
class AnsweredShard:
    """A shard's questions, the answers of each method to each question, and the engine's counters."""

    spec: ShardSpec
    questions: list[Question]
    answers: list[tuple[tuple[Generation, ...], ...]]  # [question][method][answer]
    texts: list[tuple[tuple[str, ...], ...]]  # of the same shape
    prompt_tokens: list[int]
    engine_stats: dict[str, Any]
    seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A UserError or OSError, in the place of the shard that it kept from being made."""

    error: Exception

    @classmethod
    def of(cls, error: Exception) -> Self:
        """A failure that can be pickled. The error's traceback becomes a note of it, for the log."""
        lines = "".join(traceback.format_exception(error))
        try:
            portable = pickle.loads(pickle.dumps(error))
        except Exception:  # an OSError of some library whose constructor takes other arguments
            portable = OSError(str(error))
        portable.add_note(f"In a worker:\n{lines}")
        return cls(portable)


def or_failure(call: Callable[[], T]) -> T | Failure:
    """What `call` returns, or why it cannot. Any error but UserError and OSError is a bug, and is raised."""
    try:
        return call()
    except BrokenPipeError:  # whoever reads the command's output has closed it
        raise
    except (UserError, OSError) as e:
        return Failure.of(e)
