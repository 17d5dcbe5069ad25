"""Questions as rows of a plan file: all that is known of them, so that no source is read again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flexray.data.question import Question, ShardSpec
from flexray.data.record import canonical
from flexray.errors import DataError
from flexray.storage import open_file, redact

VALUES = ("question", "paraphrases", "answers", "relation", "num_manual", "confidences")
"""The columns that say what is asked, and what is scored."""
PLAN_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("source_file", pa.string(), nullable=False),
        pa.field("source_row", pa.int64(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("paraphrases", pa.list_(pa.string()), nullable=False),
        pa.field("answers", pa.list_(pa.string())),  # null: nothing to score against
        pa.field("relation", pa.string(), nullable=False),
        pa.field("num_manual", pa.int32(), nullable=False),
        pa.field("confidences", pa.list_(pa.float64())),  # null: unknown
        pa.field("error", pa.string(), nullable=False),
        pa.field("content", pa.binary(16), nullable=False),  # digest of VALUES
    ]
)


def digest_of(values: Sequence[Any]) -> bytes:
    """The digest (16 bytes) of a question's VALUES. Questions of the same digest ask the same."""
    return blake2b(canonical(values).encode(), digest_size=16).digest()


def to_table(questions: Sequence[Question]) -> pa.Table:
    """PLAN_SCHEMA: a row for each question, in order."""
    columns: dict[str, list[Any]] = {name: [] for name in PLAN_SCHEMA.names}
    for question in questions:
        for name in PLAN_SCHEMA.names[:-1]:
            columns[name].append(getattr(question, name))
        columns["content"].append(digest_of([getattr(question, name) for name in VALUES]))
    return pa.table(columns, schema=PLAN_SCHEMA)


def to_questions(table: pa.Table, *, dataset: str, split: str) -> list[Question]:
    """The questions of some rows of PLAN_SCHEMA, in order."""
    return list(_questions(table, dataset, split))


def _questions(table: pa.Table, dataset: str, split: str) -> Iterator[Question]:
    for row in table.drop_columns(["content"]).to_pylist():
        for name in ("paraphrases", "answers", "confidences"):
            if row[name] is not None:
                row[name] = tuple(row[name])
        yield Question(dataset=dataset, split=split, **row)


def read_planned(spec: ShardSpec, columns: Sequence[str] = PLAN_SCHEMA.names) -> pa.Table:
    """The rows (PLAN_SCHEMA) of one shard.

    Raises:
        DataError: the plan file is gone, or no longer the one that was planned.
        OSError: the storage failed; another attempt may succeed.
    """
    again = "Run again: it is written again, and no row is computed twice."
    try:
        with open_file(spec.file) as stream:
            table = pq.ParquetFile(stream).read_row_group(spec.row_group, columns=list(columns))
    except FileNotFoundError as e:
        raise DataError(f"{redact(spec.file)}: the plan file is missing. {again}") from e
    except (pa.ArrowException, IndexError) as e:
        raise DataError(f"{redact(spec.file)}: the plan file cannot be read ({e}). {again}") from e
    if table.num_rows != spec.num_rows:
        raise DataError(
            f"{redact(spec.file)}: row group {spec.row_group} has {table.num_rows} rows, but {spec.num_rows} "
            f"were planned. {again}"
        )
    return table
