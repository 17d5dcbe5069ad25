"""The values that flow between the stages, and the errors a user can cause.

Flow: source record -> Question -> Prompt -> Generation -> output row (ROW_SCHEMA).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

Backend = Literal["flex", "sdpa", "eager"]
FinishReason = Literal["eos", "newline", "length", "error"]


MAX_PARAPHRASES = 2047
"""Of one question; what the mask can tell apart (see flexray.masks.layout)."""


class UserError(ValueError):
    """Something the user can put right: the message says what, where and how. Exit code 2."""


class ConfigError(UserError):
    """A configuration that cannot be run."""


class DataError(UserError):
    """An input that cannot be read at all (a missing file, a field no record has)."""


class ModelError(UserError):
    """A model folder that flexray cannot run."""


class OutputError(UserError):
    """An output folder that cannot be used, or that holds another run."""


def shown(value: Any, most: int = 120) -> str:
    """The beginning of a value's repr, of at most so many characters. No more of the value is looked at: it
    may be huge, or hold one list many times over.

    >>> shown({"a": ["b" * 1000]}, 20)
    "{'a': ['bbbbbbbbb..."
    """
    text = ""
    for piece in _repr(value, most):
        text += piece
        if len(text) > most:
            return text[: most - 3] + "..."
    return text


def _repr(value: Any, most: int) -> Iterator[str]:
    """The pieces of a repr; of a text no more than is shown."""
    if isinstance(value, dict):
        opening = "{"
        for key, item in value.items():
            yield opening
            yield from _repr(key, most)
            yield ": "
            yield from _repr(item, most)
            opening = ", "
        yield "}" if value else "{}"
    elif isinstance(value, list | tuple):
        yield "[" if isinstance(value, list) else "("
        for number, item in enumerate(value):
            yield ", " if number else ""
            yield from _repr(item, most)
        yield "]" if isinstance(value, list) else ",)" if len(value) == 1 else ")"
    elif isinstance(value, int) and value.bit_length() > 4 * most:
        yield f"{value:#x}"  # Python refuses to write thousands of digits in decimal
    else:
        yield repr(value[: most + 1] if isinstance(value, str | bytes) else value)


@dataclass(eq=False)
class RowFault(Exception):
    """One bad input row. It becomes an error row; the rest of the run goes on."""

    file: str
    row: int  # 1-based record number in the file
    field: str
    value: Any
    problem: str
    advice: str

    def __str__(self) -> str:
        return (
            f"{self.file}, row {self.row}, field {self.field!r}: {self.problem} "
            f"(value: {shown(self.value)}). {self.advice}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One input row: what is asked, N times over, and where it came from."""

    row_id: str
    dataset: str
    split: str
    source_file: str
    source_row: int  # 1-based record number in source_file
    source_id: str
    question: str
    paraphrases: tuple[str, ...] = ()
    answers: tuple[str, ...] | None = None  # None: nothing to score against
    relation: str = ""  # the group of questions it belongs to, for accuracy by relation
    num_manual: int = 0  # the first so many paraphrases are manual templates, the others automatic
    confidences: tuple[float, ...] | None = None  # of each paraphrase, in [0, 1]; None: unknown
    error: str = ""  # "" for a good row, else the row's fault


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids of one sample: context, N isolated segments, then the answer cue."""

    context: tuple[int, ...]
    segments: tuple[tuple[int, ...], ...]
    cue: tuple[int, ...]
    num_manual: int = 0  # the first so many segments are manual templates
    confidences: tuple[float, ...] | None = None  # of each segment
    row_id: str = ""  # what is drawn at random for this sample depends on it, and on nothing around it

    def __post_init__(self) -> None:
        if not self.segments or any(not s for s in self.segments):
            raise ValueError("a prompt needs at least one segment, and no segment may be empty")
        if not self.cue:
            raise ValueError("a prompt needs at least one cue token: the first answer token is fused from it")


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """One answer to a Prompt, and how it was computed."""

    token_ids: tuple[int, ...] = ()  # generated ids, the stop token included
    finish_reason: FinishReason
    backend_requested: Backend
    backend_used: Backend | Literal[""] = ""  # "" when no backend produced an answer
    fallback_reason: str = ""
    attempts: int = 1
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSpec:
    """A planned unit of work and of commit: consecutive rows of one source file."""

    shard_id: str
    file: str
    format: Literal["jsonl", "json", "parquet", "arrow"]
    first_row: int  # 1-based record number of the first row
    num_rows: int
    byte_range: tuple[int, int] | None = None  # jsonl only: [start, end) in the file
    row_ids: tuple[str, ...] = field(default=())  # one for each row, in order
    duplicate_of: tuple[tuple[int, str, int], ...] = ()  # index in row_ids; file, row that had it first
    digest: str = ""  # sha256 of the rows' content at planning time; "": not checked on reading


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
