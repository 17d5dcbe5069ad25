"""The types of a question and of a planned shard."""

from __future__ import annotations

from dataclasses import dataclass


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
    candidates: tuple[str, ...] | None = None  # answers to choose among, at least one; None: none of its own
    error: str = ""  # the row's faults; "" for a good row


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSpec:
    """Questions that are planned, answered and committed together: a row group of a plan file."""

    shard_id: str
    file: str  # path or URL of the plan file
    row_group: int
    num_rows: int
    methods: tuple[str, ...]  # names of the methods that answer them
