"""A sample of a run's rows, with the prompts that the run would make, and their lengths."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

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
class Sample:
    """Rows as a worker reads them; `prompts` are those of the good rows."""

    questions: list[Question]
    prompts: list[Prompt]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleFigures:
    """A sample in numbers; lengths are those of its good rows, in tokens."""

    rows: int
    faulty: int
    faults: tuple[str, ...]
    """The first error messages."""
    context_tokens: int
    answer_prefix_tokens: int
    prompt_tokens: Spread | None
    """See `Prompt.num_tokens`. None: no good row."""
    paraphrases: Spread | None


def take_sample(found: pa.Table, config: RunConfig, rows: int) -> Sample:
    """Tokenise about `rows` rows of a data set (PLAN_SCHEMA), a random one from each of as many equal parts;
    the same data gives the same sample. Raises UserError if the tokenizer cannot be used."""
    count, rnd = min(found.num_rows, rows), random.Random(SEED)
    edges = [i * found.num_rows // count for i in range(count + 1)]
    places = [rnd.randrange(low, high) for low, high in itertools.pairwise(edges)]
    asked = to_questions(found.take(places), dataset=config.data.name, split=config.data.split)
    questions, prompts = build_prompts(asked, prompt_builder(config))
    return Sample(questions, [prompt for prompt in prompts if prompt is not None])


def figures(sample: Sample) -> SampleFigures:
    """The sample in numbers."""
    faults = [question.error for question in sample.questions if question.error]
    first = sample.prompts[0] if sample.prompts else None
    return SampleFigures(
        rows=len(sample.questions),
        faulty=len(faults),
        faults=tuple(faults[:SHOWN_FAULTS]),
        context_tokens=len(first.context) if first else 0,
        answer_prefix_tokens=len(first.answer_prefix) if first else 0,
        prompt_tokens=Spread.of([prompt.num_tokens for prompt in sample.prompts]),
        paraphrases=Spread.of([len(prompt.segments) for prompt in sample.prompts]),
    )
