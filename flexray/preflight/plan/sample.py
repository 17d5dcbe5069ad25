"""A sample of a run's rows, with the prompts that the run would make, and their lengths."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from flexray.config import RunConfig
from flexray.data import to_questions
from flexray.data.question import Question
from flexray.pipeline.prepare import build_prompts, prompt_builder
from flexray.prompts.prompt import Prompt

SEED = 0
BINS = 8
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
    histogram: tuple[tuple[int, int, int], ...]
    """Of prompt_tokens: (from, to, rows), both ends included."""


def take_sample(found: pa.Table, config: RunConfig, rows: int) -> Sample:
    """Tokenise about `rows` rows of a data set (PLAN_SCHEMA); the same data gives the same sample. Raises
    UserError if the tokenizer cannot be used."""
    places = _spread(found.num_rows, min(found.num_rows, rows), random.Random(SEED))
    asked = to_questions(found.take(places), dataset=config.data.name, split=config.data.split)
    questions, prompts = build_prompts(asked, prompt_builder(config))
    return Sample(questions, [prompt for prompt in prompts if prompt is not None])


def figures(sample: Sample) -> SampleFigures:
    """The sample in numbers."""
    lengths = [prompt.num_tokens for prompt in sample.prompts]
    faults = [question.error for question in sample.questions if question.error]
    first = sample.prompts[0] if sample.prompts else None
    return SampleFigures(
        rows=len(sample.questions),
        faulty=len(faults),
        faults=tuple(faults[:SHOWN_FAULTS]),
        context_tokens=len(first.context) if first else 0,
        answer_prefix_tokens=len(first.answer_prefix) if first else 0,
        prompt_tokens=_spread_of(lengths),
        paraphrases=_spread_of([len(p.segments) for p in sample.prompts]),
        histogram=_histogram(lengths),
    )


def _spread(total: int, count: int, rnd: random.Random) -> list[int]:
    """`count` numbers below `total`: a random one from each of `count` equal parts."""
    edges = [i * total // count for i in range(count + 1)]
    return [rnd.randrange(low, high) for low, high in itertools.pairwise(edges)]


def _spread_of(values: list[int]) -> Spread | None:
    if not values:
        return None
    return Spread(*(int(v) for v in np.percentile(values, [0, 50, 95, 100], method="nearest")))


def _histogram(values: list[int]) -> tuple[tuple[int, int, int], ...]:
    if not values:
        return ()
    low, width = min(values), max(1, -(-(max(values) - min(values) + 1) // BINS))
    counts = np.bincount([(value - low) // width for value in values])
    highs = [min(low + (i + 1) * width - 1, max(values)) for i in range(len(counts))]
    return tuple((low + i * width, highs[i], int(count)) for i, count in enumerate(counts))
