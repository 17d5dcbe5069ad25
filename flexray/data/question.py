"""One question, and the shard that it is planned in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


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


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSpec:
    """A planned unit of work and of commit: consecutive rows of one source file."""

    shard_id: str
    file: str
    format: Literal["jsonl", "json", "parquet", "arrow", "hub"]
    first_row: int  # 1-based record number of the first row
    num_rows: int
    byte_range: tuple[int, int] | None = None  # jsonl only: [start, end) in the file
    row_ids: tuple[str, ...] = field(default=())  # one for each row, in order
    duplicate_of: tuple[tuple[int, str, int], ...] = ()  # index in row_ids; file, row that had it first
    digest: str = ""  # sha256 of the rows' content at planning time; "": not checked on reading
