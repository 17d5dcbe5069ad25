"""A sample of a run's rows, with the prompts that the run would make, and their lengths."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from flexray.config import RunConfig
from flexray.data import to_questions
from flexray.data.question import Question
from flexray.pipeline.prepare import build_prompts, prompt_builder
from flexray.prompts.prompt import Prompt

SEED = 0
SHOWN_FAULTS = 5


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of a number over rows."""

    min: int
    median: int
    p95: int
    max: int

    @classmethod
    def of(cls, values: Sequence[int]) -> Spread | None:
        """None: there are no values."""
        if not values:
            return None
        return cls(*(int(v) for v in np.percentile(values, [0, 50, 95, 100], method="nearest")))

    def __str__(self) -> str:
        if self.min == self.max:
            return f"{self.min:,}"
        return f"{self.min:,} to {self.max:,} (median {self.median:,}, p95 {self.p95:,})"


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows as a worker reads them; `prompts` are those of the good rows. Lengths are in tokens."""

    questions: list[Question]
    prompts: list[Prompt]

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.questions)

    @property
    def faults(self) -> list[str]:
        """The error messages of the faulty rows."""
        return [question.error for question in self.questions if question.error]

    @property
    def prompt_tokens(self) -> Spread | None:
        """See `Prompt.num_tokens`. None: no good row."""
        return Spread.of([prompt.num_tokens for prompt in self.prompts])

    @property
    def paraphrases(self) -> Spread | None:
        """Of a good row."""
        return Spread.of([len(prompt.segments) for prompt in self.prompts])

    def to_dict(self) -> dict[str, Any]:
        """In numbers, for JSON."""
        spreads = {"prompt_tokens": self.prompt_tokens, "paraphrases": self.paraphrases}
        return {
            "rows": self.rows,
            "faulty": len(self.faults),
            "faults": self.faults[:SHOWN_FAULTS],
            "context_tokens": len(self.prompts[0].context) if self.prompts else 0,
            "answer_prefix_tokens": len(self.prompts[0].answer_prefix) if self.prompts else 0,
            **{name: spread and dataclasses.asdict(spread) for name, spread in spreads.items()},
        }


def take_sample(found: pa.Table, config: RunConfig, rows: int) -> Sample:
    """Tokenise about `rows` rows of a data set (PLAN_SCHEMA), a random one from each of as many equal parts;
    the same data gives the same sample. Raises UserError if the tokenizer cannot be used."""
    count, rnd = min(found.num_rows, rows), random.Random(SEED)
    edges = [i * found.num_rows // count for i in range(count + 1)]
    places = [rnd.randrange(low, high) for low, high in itertools.pairwise(edges)]
    asked = to_questions(found.take(places), dataset=config.data.name, split=config.data.split)
    questions, prompts = build_prompts(asked, prompt_builder(config))
    return Sample(questions, [prompt for prompt in prompts if prompt is not None])
