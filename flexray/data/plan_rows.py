"""Questions as rows of a plan file: all that is known of them, so that no source is read again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flexray.data.question import Question, ShardSpec
from flexray.errors import DataError
from flexray.storage import open_file, redact

VALUES = ("question", "paraphrases", "answers", "relation", "num_manual", "confidences", "candidates")
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
        pa.field("candidates", pa.list_(pa.string())),  # null: none of its own
        pa.field("error", pa.string(), nullable=False),
        pa.field("content", pa.binary(16), nullable=False),  # digest of VALUES
    ]
)
_DIGEST_BYTES = 16
_END = "\0"
_SHARD_BYTES = 2**18
"""Of a plan file, about what one shard of 512 questions has. Reading ahead as far as elsewhere would fetch
fifty shards for each."""


def digest_of(values: Sequence[Any]) -> bytes:
    """The digest (16 bytes) of a question's VALUES. Questions of the same digest ask the same.

    It is the BLAKE2b of a text (UTF-8) that no other values have:

    - a head, `num_manual paraphrases answers confidences`: the number of manual paraphrases, of paraphrases
      and of answers ("-" for null), and the confidences with commas between ("-" for null); behind it the
      number of candidates, if there are any;
    - then the question, the relation, each paraphrase and each answer, each with a NUL before it; where there
      are no paraphrases or no answers, an empty text stands for them; then each candidate.

    If one of the texts has a NUL, the text is instead a NUL and the JSON list of head, question, relation,
    paraphrases, answers and, if there are any, candidates.

    Args:
        values: str, strings, strings or None, str, int, floats or None, strings or None; lists or tuples.
    """
    question, paraphrases, answers, relation, num_manual, confidences, candidates = values
    numbers = "-" if confidences is None else ",".join(map(repr, map(float, confidences)))
    head = f"{num_manual} {len(paraphrases)} {'-' if answers is None else len(answers)} {numbers}"
    answers, candidates = answers or (), candidates or ()
    head += f" {len(candidates)}" if candidates else ""
    texts = (question, relation, *paraphrases, *answers, *candidates)
    if any(_END in text for text in texts):
        lists = [list(some) for some in (paraphrases, answers, candidates)]
        text = _END + json.dumps([head, question, relation, *(lists if candidates else lists[:2])])
    else:
        text = _END.join((head, question, relation, _END.join(paraphrases), _END.join(answers), *candidates))
    return blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()


def with_digests(columns: dict[str, pa.Array]) -> pa.Table:
    """PLAN_SCHEMA, with the column `content` from the others: `digest_of` of each row."""
    paraphrases, answers, confidences = (columns[n] for n in ("paraphrases", "answers", "confidences"))
    num_answers = pc.list_value_length(answers)
    candidates = columns["candidates"]
    num_candidates = pc.fill_null(pc.list_value_length(candidates), 0)
    further = pc.greater(num_candidates, 0)
    heads = pc.binary_join_element_wise(
        pc.cast(columns["num_manual"], pa.string()),
        pc.cast(pc.list_value_length(paraphrases), pa.string()),
        pc.fill_null(pc.cast(num_answers, pa.string()), "-"),
        pa.array(["-" if c is None else ",".join(map(repr, c)) for c in confidences.to_pylist()])
        if confidences.null_count < len(confidences)
        else "-",
        " ",
    )
    if candidates.null_count < len(candidates):
        counts = pc.binary_join_element_wise("", pc.cast(num_candidates, pa.string()), " ")
        heads = pc.binary_join_element_wise(heads, pc.if_else(further, counts, ""), "")
    texts = pc.binary_join_element_wise(
        heads,
        columns["question"],
        columns["relation"],
        pc.binary_join(paraphrases, _END),
        pc.fill_null(pc.binary_join(answers, _END), ""),
        _END,
    )
    if candidates.null_count < len(candidates):
        behind = pc.binary_join_element_wise("", pc.fill_null(pc.binary_join(candidates, _END), ""), _END)
        texts = pc.binary_join_element_wise(texts, pc.if_else(further, behind, ""), "")
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    data = memoryview(texts.buffers()[2] or b"")
    ends = 4 * len(texts) + _gaps(pc.list_value_length(paraphrases)) + _gaps(num_answers)
    ends += pc.sum(num_candidates).as_py() or 0
    if len(texts) and np.count_nonzero(np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]] == 0) != ends:
        rows = zip(*(columns[name].to_pylist() for name in VALUES), strict=True)  # a text has a NUL
        digests = b"".join(map(digest_of, rows))
    else:
        places = offsets.tolist()
        digests = b"".join(
            [blake2b(data[a:b], digest_size=_DIGEST_BYTES).digest() for a, b in pairwise(places)]
        )
    content = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(_DIGEST_BYTES), len(texts), [None, pa.py_buffer(digests)]
    )
    return pa.table(columns | {"content": content}, schema=PLAN_SCHEMA)


def _gaps(lengths: pa.Array) -> int:
    """How many separators lists of these lengths have."""
    return int(pc.sum(pc.max_element_wise(pc.subtract(lengths, 1), 0)).as_py() or 0)


def to_table(questions: Sequence[Question]) -> pa.Table:
    """PLAN_SCHEMA: a row for each question, in order."""
    return with_digests(
        {
            name: pa.array([getattr(q, name) for q in questions], PLAN_SCHEMA.field(name).type)
            for name in PLAN_SCHEMA.names[:-1]
        }
    )


def to_questions(table: pa.Table, *, dataset: str, split: str) -> list[Question]:
    """The questions of some rows of PLAN_SCHEMA, in order."""
    return list(_questions(table, dataset, split))


def _questions(table: pa.Table, dataset: str, split: str) -> Iterator[Question]:
    for row in table.drop_columns(["content"]).to_pylist():
        for name in ("paraphrases", "answers", "confidences", "candidates"):
            if row[name] is not None:
                row[name] = tuple(row[name])
        yield Question(dataset=dataset, split=split, **row)


def complete(table: pa.Table) -> pa.Table:
    """Rows of a plan file with the column that it lacks if it was written before there were candidates."""
    field = PLAN_SCHEMA.field("candidates")
    if field.name in table.column_names:
        return table
    place = table.column_names.index("confidences") + 1
    return table.add_column(place, field, pa.nulls(len(table), field.type))


def read_planned(spec: ShardSpec, columns: Sequence[str] = PLAN_SCHEMA.names) -> pa.Table:
    """The rows (PLAN_SCHEMA) of one shard.

    Raises:
        DataError: the plan file is gone, or no longer the one that was planned.
        OSError: the storage failed; another attempt may succeed.
    """
    again = "Run again: it is written again, and no row is computed twice."
    try:
        with open_file(spec.file, chunk=_SHARD_BYTES) as stream:
            file = pq.ParquetFile(stream, page_checksum_verification=True)
            table = file.read_row_group(spec.row_group, columns=list(columns))
            table = complete(table) if "candidates" in columns else table
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
