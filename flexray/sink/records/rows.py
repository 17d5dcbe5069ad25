"""Output rows as an Arrow table: schema, conversion to and from Parquet, validity rules, counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flexray.data.plan_rows import PLAN_SCHEMA
from flexray.engine.generation import FinishReason
from flexray.sink.records import ShardStats
from flexray.sink.records.differences import differences

_NOT_HERE = ("row_id", "candidates", "error", "content")  # they stand elsewhere, or not at all
_QUESTION = [field for field in PLAN_SCHEMA if field.name not in _NOT_HERE]
# One output row. An error row has the same schema; `error` is "" for a good row, never null.
ROW_SCHEMA = pa.schema(
    [
        PLAN_SCHEMA.field("row_id"),
        pa.field("shard_id", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        *_QUESTION,
        pa.field("method", pa.string(), nullable=False),
        pa.field("prediction", pa.string(), nullable=False),
        # the answer to each paraphrase alone (methods per_prompt and confidence); otherwise empty
        pa.field("paraphrase_predictions", pa.list_(pa.string()), nullable=False),
        # drawn answers (methods sampled, draws and confidence); otherwise empty
        pa.field("samples", pa.list_(pa.string()), nullable=False),
        pa.field("correct", pa.bool_()),  # null: error row, or nothing to score against
        pa.field("token_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("prompt_tokens", pa.int32(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("backend_requested", pa.string(), nullable=False),
        pa.field("backend_used", pa.string(), nullable=False),
        pa.field("fallback_reason", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        # for each of `samples` the paraphrases that it was drawn from (method draws); null: none were drawn
        pa.field("subsets", pa.list_(pa.list_(pa.int32()))),
        # with generation.logprobs, else null; of each of token_ids, of all, and of the most likely tokens
        pa.field("logprobs", pa.list_(pa.float32())),
        pa.field("logprob_sum", pa.float64()),
        pa.field("logprob_mean", pa.float64()),
        pa.field("top_token_ids", pa.list_(pa.list_(pa.int32()))),
        pa.field("top_logprobs", pa.list_(pa.list_(pa.float32()))),
        # the row's own (data.fields.candidates), else null
        PLAN_SCHEMA.field("candidates"),
        # of each of these or of those that generation.candidates has for the row, in order; null: generated
        pa.field("candidate_scores", pa.list_(pa.float64())),
    ]
)
LOGPROBS = ("logprobs", "logprob_sum", "logprob_mean", "top_token_ids", "top_logprobs")
ADDED = ("subsets", *LOGPROBS, "candidates", "candidate_scores")
"""The last columns, which tables may lack that were begun before there were any: all null there."""


def to_parquet(table: pa.Table) -> bytes:
    """The table as one zstd Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def from_parquet(data: bytes) -> pa.Table:
    """Read the bytes of a Parquet file; columns of ADDED that it lacks are null. Raises
    pyarrow.ArrowException or OSError if they are not Parquet."""
    table = pq.read_table(pa.BufferReader(data))
    for place, field in enumerate(ROW_SCHEMA):
        if field.name in ADDED and field.name not in table.column_names:
            table = table.add_column(min(place, table.num_columns), field, pa.nulls(len(table), field.type))
    return table


def keys_of(table: pa.Table) -> list[tuple[str, str]]:
    """The (method, row_id) pair of each row, in order. This pair identifies a row."""
    return list(zip(table["method"].to_pylist(), table["row_id"].to_pylist(), strict=True))


def expected_keys(methods: Sequence[str], row_ids: Sequence[str]) -> list[tuple[str, str]]:
    """The (method, row_id) pairs of a shard's table: for each method in order, all row ids in order."""
    return [(method, row_id) for method in methods for row_id in row_ids]


def columns_of(schema: pa.Schema) -> dict[str, str]:
    """Column -> type, in order, as written into the run record; without those of ADDED, which any table may
    get."""
    columns = (field for field in schema if field.name not in ADDED)
    return {f.name: f"{f.type}{'' if f.nullable else ' not null'}" for f in columns}


def schema_fault(schema: pa.Schema) -> str:
    """How a schema differs from ROW_SCHEMA; "" if it does not."""
    if schema.equals(ROW_SCHEMA):
        return ""
    lines = differences(columns_of(ROW_SCHEMA), columns_of(schema))
    return "its schema is not that of output rows: " + ("; ".join(lines) or "the order of columns differs")


def row_faults(table: pa.Table, shard_id: str) -> list[str]:
    """The validity rules that rows of a shard break; [] if there are none.

    `table` has ROW_SCHEMA. A row is either answered (by a named backend, and with a reason if this is not the
    requested backend) or an error row (with finish_reason "error" and no score).
    """
    nulls = [f.name for f in ROW_SCHEMA if not f.nullable and table[f.name].null_count]
    if nulls:
        return [f"null in {', '.join(nulls)}"]
    failed = pc.not_equal(table["error"], "")
    finished_badly = pc.equal(table["finish_reason"], "error")
    used = table["backend_used"]
    scored = pc.is_valid(table["correct"])
    fell_back = pc.not_equal(used, table["backend_requested"])
    breaches = {
        "belong to another shard": pc.not_equal(table["shard_id"], shard_id),
        "have an unknown finish_reason": pc.invert(
            pc.is_in(table["finish_reason"], pa.array(get_args(FinishReason)))
        ),
        "have an error but another finish_reason, or finish_reason 'error' but no error": pc.xor(
            failed, finished_badly
        ),
        "are answered, but name no backend": pc.and_(pc.invert(failed), pc.equal(used, "")),
        "fell back to another backend without a reason": pc.and_(
            pc.and_(pc.invert(failed), fell_back), pc.equal(table["fallback_reason"], "")
        ),
        "are scored, but are error rows or have no answers": pc.and_(
            scored, pc.or_(failed, pc.is_null(table["answers"]))
        ),
    }
    counts = {breach: pc.sum(rows).as_py() or 0 for breach, rows in breaches.items()}
    return [f"{count} row(s) {breach}" for breach, count in counts.items() if count]


def account(table: pa.Table) -> ShardStats:
    """Count the rows of a shard. `table` has ROW_SCHEMA and no row faults."""
    return ShardStats(
        rows=table.num_rows,
        answered=_count(pc.equal(table["error"], "")),
        errors=_count(pc.not_equal(table["error"], "")),
        rows_by_method=_counter(table["method"]),
        backend_requested=_counter(table["backend_requested"]),
        backend_used=_counter(table["backend_used"]),
        fallback_reason=_counter(table["fallback_reason"]),
        finish_reason=_counter(table["finish_reason"]),
        scored=_count(pc.is_valid(table["correct"])),
        correct=_count(table["correct"]),
        prompt_tokens=pc.sum(table["prompt_tokens"].cast(pa.int64())).as_py() or 0,
        generated_tokens=pc.sum(pc.list_value_length(table["token_ids"]).cast(pa.int64())).as_py() or 0,
    )


def accounting_faults(accounting: ShardStats) -> list[str]:
    """The counts of a shard that contradict each other; [] if there are none."""
    faults = []
    if accounting.answered + accounting.errors != accounting.rows:
        faults.append(
            f"{accounting.answered} answered + {accounting.errors} errors are not {accounting.rows} rows"
        )
    for name in ("rows_by_method", "backend_requested", "backend_used", "fallback_reason", "finish_reason"):
        total = sum(getattr(accounting, name).values())
        if total != accounting.rows:
            faults.append(f"{name} sums to {total}, not to {accounting.rows} rows")
    if not accounting.correct <= accounting.scored <= accounting.answered:
        faults.append(
            f"correct <= scored <= answered does not hold: "
            f"{accounting.correct}, {accounting.scored}, {accounting.answered}"
        )
    return faults


def _count(flags: pa.ChunkedArray) -> int:
    return int(pc.sum(flags).as_py() or 0)


def _counter(column: pa.ChunkedArray) -> dict[str, int]:
    return dict(sorted((item["values"], item["counts"]) for item in column.value_counts().to_pylist()))
