"""The columns of the output."""

from __future__ import annotations

import pyarrow as pa

# One output row. An error row has the same schema; `error` is "" for a good row, never null.
ROW_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("shard_id", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("source_file", pa.string(), nullable=False),
        pa.field("source_row", pa.int64(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("paraphrases", pa.list_(pa.string()), nullable=False),
        pa.field("answers", pa.list_(pa.string())),  # null: nothing to score against
        pa.field("relation", pa.string(), nullable=False),
        pa.field("num_manual", pa.int32(), nullable=False),
        pa.field("confidences", pa.list_(pa.float64())),  # null: unknown
        pa.field("method", pa.string(), nullable=False),
        pa.field("prediction", pa.string(), nullable=False),
        # of each paraphrase answered alone (methods per_prompt and confidence); else empty
        pa.field("paraphrase_predictions", pa.list_(pa.string()), nullable=False),
        pa.field("samples", pa.list_(pa.string()), nullable=False),  # the answers drawn (sampled); else empty
        pa.field("correct", pa.bool_()),  # null: error row, or nothing to score against
        pa.field("token_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("prompt_tokens", pa.int32(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("backend_requested", pa.string(), nullable=False),
        pa.field("backend_used", pa.string(), nullable=False),
        pa.field("fallback_reason", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
    ]
)
