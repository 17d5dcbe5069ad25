"""Shards as rows of Ray Data: one row is one shard, or in its place the failure that ends the run.

Between two stages all rows have the same schema, so Ray can cut and merge blocks without a conversion. The
questions, prompts and answers of a shard are lists in its row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import accumulate, pairwise
from typing import Any

import pyarrow as pa

from flexray.data.question import ShardSpec
from flexray.pipeline.failures import FAILURE, Failure
from flexray.pipeline.shards import ANSWERS, QUESTION_SCHEMA, AnsweredShard, PreparedShard
from flexray.prompts.prompt import Prompt

_TOKENS = pa.list_(pa.int32())
_SPEC = (
    pa.field("shard_id", pa.string()),
    pa.field("file", pa.string()),
    pa.field("row_group", pa.int64()),
    pa.field("num_rows", pa.int64()),
    pa.field("methods", pa.list_(pa.string())),
)
_SHARD = (
    *_SPEC,
    pa.field("failure", FAILURE),  # null: none. Otherwise all other fields are null
    pa.field("questions", pa.list_(pa.struct(list(QUESTION_SCHEMA)))),
)
_PROMPT = pa.struct(
    [
        pa.field("segments", pa.list_(_TOKENS)),
        pa.field("num_head", pa.int32()),
        pa.field("candidates", pa.list_(_TOKENS)),
    ]
)
PREPARED_SCHEMA = pa.schema(
    [
        *_SHARD,
        pa.field("context", _TOKENS),
        pa.field("few_shots", pa.list_(_TOKENS)),
        pa.field("answer_prefix", _TOKENS),
        pa.field("prompts", pa.list_(_PROMPT)),  # what only one prompt has; null: an error row
    ]
)
ANSWERED_SCHEMA = pa.schema(
    [
        *_SHARD,
        pa.field("prompt_tokens", _TOKENS),
        pa.field("answers", pa.list_(ANSWERS)),
        pa.field("engine_stats", pa.string()),  # a JSON object
        pa.field("seconds", pa.float64()),
    ]
)
COMMITTED_SCHEMA = pa.schema(
    [
        pa.field("shard_id", pa.string()),
        pa.field("failure", FAILURE),
        pa.field("rows", pa.int64()),
        pa.field("errors", pa.int64()),
        pa.field("fallbacks", pa.int64()),
        pa.field("empty", pa.int64()),
        pa.field("seconds", pa.float64()),
    ]
)


def spec_row(spec: ShardSpec) -> dict[str, Any]:
    """The row of a planned shard."""
    return asdict(spec)


def prepared_row(shard: PreparedShard) -> pa.Table:
    """One row of PREPARED_SCHEMA."""
    some = next((prompt for prompt in shard.prompts if prompt), None)
    own = [
        {field.name: getattr(prompt, field.name) for field in _PROMPT} if prompt else None
        for prompt in shard.prompts
    ]
    return _row(
        PREPARED_SCHEMA,
        shard,
        context=some.context if some else (),
        few_shots=some.few_shots if some else (),
        answer_prefix=some.answer_prefix if some else (),
        prompts=own,
    )


def answered_row(shard: AnsweredShard) -> pa.Table:
    """One row of ANSWERED_SCHEMA."""
    return _row(
        ANSWERED_SCHEMA,
        shard,
        prompt_tokens=shard.prompt_tokens,
        answers=_as_cell(shard.answers),
        engine_stats=json.dumps(shard.engine_stats),
        seconds=shard.seconds,
    )


def committed_row(fields: Mapping[str, Any]) -> pa.Table:
    """One row of COMMITTED_SCHEMA, from the fields of a CommittedShard."""
    return pa.Table.from_pylist([fields], COMMITTED_SCHEMA)


def failure_row(failure: Failure, schema: pa.Schema) -> pa.Table:
    """A row of any of the three schemas."""
    return pa.Table.from_pylist([{"failure": asdict(failure)}], schema)


def read_specs(batch: pa.Table) -> list[ShardSpec]:
    """The planned shards of a batch."""
    rows = batch.select([field.name for field in _SPEC]).to_pylist()
    return [ShardSpec(**row | {"methods": tuple(row["methods"])}) for row in rows]


def read_prepared(batch: pa.Table) -> Iterator[PreparedShard | Failure]:
    """The rows of a batch of PREPARED_SCHEMA."""
    for row in _rows(batch):
        yield _failure(row) or PreparedShard(read_specs(row)[0], _questions(row), _prompts(row))


def read_answered(batch: pa.Table) -> Iterator[AnsweredShard | Failure]:
    """The rows of a batch of ANSWERED_SCHEMA."""
    for row in _rows(batch):
        yield _failure(row) or AnsweredShard(
            read_specs(row)[0],
            _questions(row),
            row["prompt_tokens"][0].as_py(),
            _cell(row, "answers"),
            json.loads(row["engine_stats"][0].as_py()),
            row["seconds"][0].as_py(),
        )


def read_committed(batch: pa.Table) -> Iterator[dict[str, Any] | Failure]:
    """The rows of a batch of COMMITTED_SCHEMA: the fields of CommittedShards."""
    for row in _rows(batch):
        yield _failure(row) or row.drop_columns(["failure"]).to_pylist()[0]


def _row(schema: pa.Schema, shard: PreparedShard | AnsweredShard, **cells: Any) -> pa.Table:
    questions = [shard.questions[name].combine_chunks() for name in QUESTION_SCHEMA.names]
    cells |= asdict(shard.spec) | {
        "failure": None,
        "questions": _as_cell(pa.StructArray.from_arrays(questions, fields=list(QUESTION_SCHEMA))),
    }
    columns = {
        field.name: cell if isinstance(cell := cells[field.name], pa.Array) else pa.array([cell], field.type)
        for field in schema
    }
    return pa.table(columns, schema=schema)


def _as_cell(values: pa.Array) -> pa.ListArray:
    """A column of one row, whose cell is the list of all values."""
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def _rows(batch: pa.Table) -> Iterator[pa.Table]:
    return (batch.slice(row, 1) for row in range(batch.num_rows))


def _cell(row: pa.Table, name: str) -> pa.Array:
    """The values of a list in a row."""
    return row[name].combine_chunks().flatten()


def _failure(row: pa.Table) -> Failure | None:
    fields = row["failure"][0].as_py()
    return Failure(**fields) if fields else None


def _questions(row: pa.Table) -> pa.Table:
    return pa.table(_cell(row, "questions").flatten(), schema=QUESTION_SCHEMA)


def _prompts(row: pa.Table) -> list[Prompt | None]:
    own = _cell(row, "prompts")
    segments, num_heads, candidates = own.flatten()
    context, answer_prefix = (tuple(row[name][0].as_py()) for name in ("context", "answer_prefix"))
    few_shots = tuple(map(tuple, row["few_shots"][0].as_py()))
    asked = _questions(row).select(["num_manual", "confidences", "row_id"])
    columns = (
        own.is_valid().to_pylist(),
        _tuples(segments),
        num_heads.to_pylist(),
        _tuples(candidates),
        asked.to_pylist(),
    )
    return [
        Prompt(
            context,
            mine,
            answer_prefix,
            question["num_manual"],
            None if (confidences := question["confidences"]) is None else tuple(confidences),
            question["row_id"],
            num_head,
            few_shots,
            choices,
        )
        if valid
        else None
        for valid, mine, num_head, choices, question in zip(*columns, strict=True)
    ]


def _tuples(array: pa.Array) -> list[Any]:
    """The values in Python, each list as a tuple; () for a null list. Faster than `to_pylist`."""
    if not pa.types.is_list(array.type):
        return list(array.to_numpy(zero_copy_only=False).tolist())
    flat = _tuples(array.flatten())
    edges = [0, *accumulate(length or 0 for length in array.value_lengths().to_pylist())]
    return [tuple(flat[start:end]) for start, end in pairwise(edges)]
