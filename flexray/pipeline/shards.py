"""A shard on its way through the pipeline: prepared, then answered.

The questions and the answers are Arrow columns from the plan file to the commit. This module does not import
torch, because not every worker process needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, chain
from typing import Any

import pyarrow as pa

from flexray.data.plan_rows import PLAN_SCHEMA
from flexray.data.question import Question, ShardSpec
from flexray.engine.generation import Generation, Logprobs
from flexray.prompts.prompt import Prompt

QUESTION_SCHEMA = pa.schema(
    [
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        *(field for field in PLAN_SCHEMA if field.name != "content"),
    ]
)
"""The fields of Question."""
LOGPROBS = pa.struct(
    [
        pa.field("chosen", pa.list_(pa.float32())),
        pa.field("top_token_ids", pa.list_(pa.list_(pa.int32()))),
        pa.field("top", pa.list_(pa.list_(pa.float32()))),
    ]
)
"""The fields of Logprobs."""
ANSWER_FIELDS = (
    pa.field("token_ids", pa.list_(pa.int32())),
    pa.field("finish_reason", pa.string()),
    pa.field("backend_requested", pa.string()),
    pa.field("backend_used", pa.string()),
    pa.field("fallback_reason", pa.string()),
    pa.field("attempts", pa.int32()),
    pa.field("error", pa.string()),
    pa.field("logprobs", LOGPROBS),
    pa.field("subset", pa.list_(pa.int32())),
    pa.field("candidate_scores", pa.list_(pa.float64())),
)
"""The fields of Generation."""
ANSWERS = pa.list_(pa.struct([*ANSWER_FIELDS, pa.field("text", pa.string())]))
"""The answers to one question by one method: one, or one for each paraphrase or sample."""


@dataclass(frozen=True, slots=True)
class PreparedShard:
    """A shard, or some of its rows, ready to be answered. `prompts[i]` is None if row i of `questions`
    (QUESTION_SCHEMA) has an error. All prompts have the same context and answer prefix."""

    spec: ShardSpec
    questions: pa.Table
    prompts: list[Prompt | None]

    @property
    def prompt_tokens(self) -> list[int]:
        """The number of tokens of each prompt; 0 if there is no prompt."""
        return [prompt.num_tokens if prompt else 0 for prompt in self.prompts]


@dataclass(frozen=True, slots=True)
class AnsweredShard:
    """A shard's questions (QUESTION_SCHEMA), the answers to them, and the engine's counters. `answers`
    (ANSWERS) are for each method in turn those to each question in order."""

    spec: ShardSpec
    questions: pa.Table
    prompt_tokens: list[int]
    answers: pa.ListArray
    engine_stats: dict[str, Any]
    seconds: float


def question_table(questions: Sequence[Question]) -> pa.Table:
    """QUESTION_SCHEMA: a row for each question, in order."""
    columns = {f.name: pa.array([getattr(q, f.name) for q in questions], f.type) for f in QUESTION_SCHEMA}
    return pa.table(columns, schema=QUESTION_SCHEMA)


def answer_lists(
    answers: Sequence[Sequence[Sequence[Generation]]], texts: Sequence[Sequence[Sequence[str]]]
) -> pa.ListArray:
    """The answers of a shard as AnsweredShard has them. Both arguments: [question][method][answer]."""
    groups = list(chain.from_iterable(zip(*answers, strict=True)))
    flat = list(chain.from_iterable(groups))
    columns = [pa.array([_value(one, field.name) for one in flat], field.type) for field in ANSWER_FIELDS]
    said = chain.from_iterable(chain.from_iterable(zip(*texts, strict=True)))
    columns.append(pa.array(list(said), pa.string()))
    offsets = pa.array(list(accumulate(map(len, groups), initial=0)), pa.int32())
    values = pa.StructArray.from_arrays(columns, fields=list(ANSWERS.value_type))
    return pa.ListArray.from_arrays(offsets, values, type=ANSWERS)


def _value(answer: Generation, name: str) -> Any:
    value = getattr(answer, name)
    return asdict(value) if isinstance(value, Logprobs) else value
