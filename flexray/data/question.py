"""The types of a question and of a planned shard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One input row: a question in N paraphrases, and where it was read."""

    row_id: str
    dataset: str
    split: str
    source_file: str
    source_row: int  # 1-based record number in source_file
    source_id: str
    question: str
    paraphrases: tuple[str, ...] = ()
    answers: tuple[str, ...] | None = None  # None: nothing to score against
    relation: str = ""  # the group of questions that it belongs to, for accuracy by relation
    num_manual: int = 0  # the first num_manual paraphrases are manual templates, the others automatic
    confidences: tuple[float, ...] | None = None  # one per paraphrase, in [0, 1]; None: unknown
    error: str = ""  # the row's faults; "" for a good row


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSpec:
    """Consecutive rows of one source file that are planned, answered and committed together."""

    shard_id: str
    file: str
    format: Literal["jsonl", "json", "parquet", "arrow", "hub"]
    first_row: int  # 1-based record number of the first row
    num_rows: int
    byte_range: tuple[int, int] | None = None  # jsonl only: [start, end) in the file
    row_ids: tuple[str, ...] = field(default=())  # one per row, in order
    duplicate_of: tuple[tuple[int, str, int], ...] = ()  # index in row_ids; file and row of the first one
    digest: str = ""  # sha256 of the rows' content when the shard was planned; "": not checked on reading
