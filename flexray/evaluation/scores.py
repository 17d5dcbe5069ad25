"""One pass over output tables: each row becomes a few numbers, and its text is not kept.

A scored row takes 16 bytes for each method: digests of its id (to pair methods) and of its answers (to
check that they are the same), and its relation; 4 to 8 more for each metric, and 16 more if its paraphrases
were answered alone. Other rows are only counted.
"""

from __future__ import annotations

import hashlib
import zlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flexray.errors import OutputError
from flexray.evaluation.bootstrap import Floats
from flexray.evaluation.metrics import EXACT_MATCH, FLAGS, Metric
from flexray.evaluation.paraphrases import ParaphraseTally

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
    metrics: dict[str, Floats | npt.NDArray[np.float32]]  # the headline metric first
    paraphrases: ParaphraseTally

    @property
    def scored(self) -> int:
        """Answered rows that have accepted answers."""
        return len(self.row_keys)

    @property
    def headline(self) -> str:
        """The metric by which methods are compared."""
        return next(iter(self.metrics))

    @property
    def accuracy(self) -> float | None:
        """The headline metric's mean over the scored rows that it applies to. None: there are none."""
        values = self.values(self.headline)
        known = values[~np.isnan(values)]
        return float(known.mean()) if len(known) else None

    def values(self, metric: str) -> Floats:
        """The metric of each scored row; NaN where it does not apply."""
        return self.metrics[metric].astype(np.float64)


def collect_scores(
    tables: Iterable[pa.Table], metrics: dict[str, Metric], *, where: str
) -> dict[str, MethodScores]:
    """Score every row of the tables, method by method, sorted by the method's name.

    Args:
        tables: tables with at least COLUMNS of ROW_SCHEMA; read one at a time and not kept.
        metrics: by name, the headline metric first (see `make_metrics`).
        where: what holds them, for messages.

    Raises:
        OutputError: a method has the same row twice.
    """
    methods: dict[str, _MethodRows] = {}
    relations: dict[str, int] = {}
    for table in tables:
        for batch in table.select(COLUMNS).to_batches(max_chunksize=_BATCH_ROWS):
            for row in batch.to_pylist():
                methods.setdefault(row["method"], _MethodRows(metrics)).add(row, relations)
    return {method: methods[method].finish(tuple(relations), method, where) for method in sorted(methods)}


class _MethodRows:
    """One method's rows, as far as they are read."""

    def __init__(self, metrics: dict[str, Metric]) -> None:
        self.rows = 0
        self.errors = 0
        self._row_keys = array("Q")
        self._answers_digests = array("I")
        self._relations = array("i")
        self._functions = metrics
        self._metrics: dict[str, array[Any]] = {
            metric: array("f" if metric in FLAGS else "d") for metric in metrics
        }
        self._paraphrases = ParaphraseTally(next(iter(metrics.values())))

    def add(self, row: dict[str, Any], relations: dict[str, int]) -> None:
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
        for metric, function in self._functions.items():
            value = correct if metric == EXACT_MATCH else function(prediction, answers)
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
