"""One pass over output tables: each row becomes a few numbers, and its text is not kept.

A scored row takes 36 bytes for each method: digests of its id (to pair methods) and of its answers (to
check that they are the same), its relation, and its scores; and 16 more if its paraphrases were answered
alone. Other rows are only counted.
"""

from __future__ import annotations

import hashlib
import zlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flexray.errors import OutputError
from flexray.evaluation.answer_metrics import METRICS, Lemmatizer, Metric, lemma_match, measure
from flexray.evaluation.bootstrap import Floats
from flexray.evaluation.paraphrases import ParaphraseTally

FLAGS = ("exact_match", "lemma_match", "first_word_match")
"""Metrics that are 0, 1 or NaN, kept in four bytes; any other takes eight."""

COLUMNS = (
    "method",
    "error",
    "correct",
    "row_id",
    "answers",
    "relation",
    "prediction",
    "paraphrase_predictions",
)
_BATCH_ROWS = 4_096  # rows that are Python objects at once


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MethodScores:
    """One method's rows: counts, and the numbers of each scored row, in order of `row_keys`."""

    rows: int
    errors: int
    row_keys: npt.NDArray[np.uint64]
    answers_digests: npt.NDArray[np.uint32]
    relations: npt.NDArray[np.int32]  # index in relation_names
    relation_names: tuple[str, ...]
    metrics: dict[str, Floats | npt.NDArray[np.float32]]
    paraphrases: ParaphraseTally

    @property
    def scored(self) -> int:
        """Answered rows that have accepted answers."""
        return len(self.row_keys)

    @property
    def accuracy(self) -> float | None:
        """Exact match, the mean over the scored rows. None: nothing is scored."""
        return float(self.values("exact_match").mean()) if self.scored else None

    def values(self, metric: str) -> Floats:
        """The metric of each scored row; NaN where it does not apply."""
        return self.metrics[metric].astype(np.float64)


def collect_scores(
    tables: Iterable[pa.Table], lemmatizer: Lemmatizer, *, where: str
) -> dict[str, MethodScores]:
    """Score every row of the tables, method by method, sorted by the method's name.

    Args:
        tables: tables with at least COLUMNS of ROW_SCHEMA; read one at a time and not kept.
        where: what holds them, for messages.

    Raises:
        OutputError: a method has the same row twice.
    """
    metrics = METRICS | {"lemma_match": partial(lemma_match, lemmatizer=lemmatizer)}
    methods: dict[str, _MethodRows] = {}
    relations: dict[str, int] = {}
    for table in tables:
        for batch in table.select(COLUMNS).to_batches(max_chunksize=_BATCH_ROWS):
            for row in batch.to_pylist():
                methods.setdefault(row["method"], _MethodRows()).add(row, metrics, relations)
    return {method: methods[method].finish(tuple(relations), method, where) for method in sorted(methods)}


class _MethodRows:
    """One method's rows, as far as they are read."""

    def __init__(self) -> None:
        self.rows = 0
        self.errors = 0
        self._row_keys = array("Q")
        self._answers_digests = array("I")
        self._relations = array("i")
        self._metrics: dict[str, array[Any]] = {
            metric: array("f" if metric in FLAGS else "d") for metric in METRICS
        }
        self._paraphrases = ParaphraseTally()

    def add(self, row: dict[str, Any], metrics: dict[str, Metric], relations: dict[str, int]) -> None:
        """Take a row. Its `correct` is the run's own exact match; null: not scored."""
        self.rows += 1
        if row["error"]:
            self.errors += 1
            return
        correct, prediction = row["correct"], row["prediction"]
        answers = None if correct is None else row["answers"]
        if row["paraphrase_predictions"]:
            self._paraphrases.add(row["paraphrase_predictions"], answers)
        if answers is None:
            return
        self._row_keys.append(_key(row["row_id"]))
        self._answers_digests.append(zlib.crc32("\x1f".join(answers).encode()))
        self._relations.append(relations.setdefault(row["relation"], len(relations)))
        for metric, function in metrics.items():
            value = correct if metric == "exact_match" else measure(metric, function, prediction, answers)
            self._metrics[metric].append(value)

    def finish(self, relation_names: tuple[str, ...], method: str, where: str) -> MethodScores:
        keys = np.array(self._row_keys)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        if (keys[1:] == keys[:-1]).any():
            raise OutputError(f"{where}: method {method!r} has a row twice. `flexray verify` names it.")
        return MethodScores(
            rows=self.rows,
            errors=self.errors,
            row_keys=keys,
            answers_digests=np.array(self._answers_digests)[order],
            relations=np.array(self._relations)[order],
            relation_names=relation_names,
            metrics={metric: np.array(kept)[order] for metric, kept in self._metrics.items()},
            paraphrases=self._paraphrases,
        )


def _key(row_id: str) -> int:
    """64 bits of a row id: among ten million ids, two share them once in 400,000 data sets."""
    return int.from_bytes(hashlib.blake2b(row_id.encode(), digest_size=8).digest())
