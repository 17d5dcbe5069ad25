"""What one stage passes to the next: a shard, or instead of it the failure that ends the run.

Ray Data wraps an error that a worker raises into another error, as text with one or two tracebacks. So an
error that the user can correct is returned instead of raised, and the driver raises it. This module does not
import torch, because not every worker process needs it.
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
    """A shard, or some of its rows, ready to be answered. `prompts[i]` is None if `questions[i]` has an
    error."""

    spec: ShardSpec
    questions: list[Question]
    prompts: list[Prompt | None]

    @property
    def prompt_tokens(self) -> list[int]:
        """The number of tokens of each prompt; 0 if there is no prompt."""
        return [prompt.num_tokens if prompt else 0 for prompt in self.prompts]


@dataclass(frozen=True, slots=True)
class AnsweredShard:
    """A shard's questions, the answers of each method to each question, and the engine's counters."""

    spec: ShardSpec
    questions: list[Question]
    answers: list[tuple[tuple[Generation, ...], ...]]  # [question][method][answer]
    texts: list[tuple[tuple[str, ...], ...]]  # [question][method][answer]
    prompt_tokens: list[int]
    engine_stats: dict[str, Any]
    seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A UserError or OSError, passed on instead of the shard in which it occurred."""

    error: Exception

    @classmethod
    def of(cls, error: Exception) -> Self:
        """A failure that can be pickled. The error's traceback is added to it as a note, for the log."""
        lines = "".join(traceback.format_exception(error))
        try:
            portable = pickle.loads(pickle.dumps(error))
        except Exception:  # some libraries have an OSError whose constructor takes other arguments
            portable = OSError(str(error))
        portable.add_note(f"In a worker:\n{lines}")
        return cls(portable)


def or_failure(call: Callable[[], T]) -> T | Failure:
    """The result of `call`, or a Failure if it raises UserError or OSError. Any other error is a bug and is
    raised."""
    try:
        return call()
    except BrokenPipeError:  # the reader of the command's output has closed the pipe
        raise
    except (UserError, OSError) as e:
        return Failure.of(e)
