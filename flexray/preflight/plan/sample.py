"""A sample of a run's rows, with the prompts that the run would make, and their lengths."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flexray.config import RunConfig
from flexray.data.question import Question, ShardSpec
from flexray.pipeline.prepare import prepare_shard
from flexray.prompts.prompt import Prompt

SEED = 0
SHARDS_READ = 32
"""At most: each shard is read as a whole, which is a request to an object store."""
BINS = 8
SHOWN_FAULTS = 5


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows as a worker reads them; `prompts` are those of the good rows."""

    questions: list[Question]
    prompts: list[Prompt]
    shards: int  # that were read


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
    shards: int
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


def take_sample(shards: Sequence[ShardSpec], config: RunConfig, rows: int) -> Sample:
    """Read, check and tokenise about `rows` rows; the same data gives the same sample.

    Raises:
        UserError: the tokenizer cannot be used, or the data changed meanwhile. OSError: the storage failed.
    """
    rnd = random.Random(SEED)
    read = [shards[i] for i in _spread(len(shards), min(len(shards), SHARDS_READ, rows), rnd)]
    places = [(shard, row_id) for shard in read for row_id in shard.row_ids]
    wanted: dict[int, set[str]] = {}
    for place in _spread(len(places), min(len(places), rows), rnd):
        shard, row_id = places[place]
        wanted.setdefault(read.index(shard), set()).add(row_id)
    prepared = [prepare_shard(read[i], config, frozenset(ids)) for i, ids in wanted.items()]
    return Sample(
        [question for part in prepared for question in part.questions],
        [prompt for part in prepared for prompt in part.prompts if prompt is not None],
        len(wanted),
    )


def figures(sample: Sample) -> SampleFigures:
    """The sample in numbers."""
    lengths = [prompt.num_tokens for prompt in sample.prompts]
    faults = [question.error for question in sample.questions if question.error]
    first = sample.prompts[0] if sample.prompts else None
    return SampleFigures(
        rows=len(sample.questions),
        shards=sample.shards,
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
