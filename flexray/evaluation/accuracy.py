"""The accuracy of a finished run, method by method, in one pass over its output tables."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from flexray.evaluation.metrics import Metric

Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution

MANY_CONTAINED = 0.1
"""Share of answers that contain an accepted one, from which on a much lower exact match is pointed out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreCounts:
    """Counts of one method's rows. An error row is never scored: `scored + errors <= rows`."""

    rows: int = 0
    errors: int = 0
    scored: int = 0  # answered rows that have accepted answers
    correct: float = 0
    """Sum of the metric over these: with one that is 0 or 1 the number of correct answers."""

    @property
    def answered(self) -> int:
        """Rows without an error, scored or not."""
        return self.rows - self.errors

    @property
    def accuracy(self) -> float | None:
        """The metric's mean over the scored rows, in [0, 1]. None: nothing was scored."""
        return self.correct / self.scored if self.scored else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The accuracy's Wilson 95 % interval; of a metric between 0 and 1 it is wider than it need be. None:
        nothing was scored."""
        return wilson_interval(self.correct, self.scored) if self.scored else None

    def __add__(self, other: Self) -> Self:
        return type(self)(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


def accuracy_by_method(tables: Iterable[pa.Table], metric: Metric | None = None) -> dict[str, ScoreCounts]:
    """Count rows, errors and correct answers of each method, sorted by the method's name.

    Args:
        tables: tables with at least the columns `method`, `error` and `correct` of ROW_SCHEMA, for a metric
            `prediction` and `answers`, too. They are read one at a time and not kept, so an iterator over
            files of any total size will do.
        metric: what is counted; rows that it does not apply to are not scored. None: exact match, which the
            rows have.
    """
    totals: dict[str, ScoreCounts] = {}
    for table in tables:
        correct = row_scores(table, metric)
        flags = pa.table(
            {
                "method": table["method"],
                "error": pc.not_equal(table["error"], ""),
                "scored": pc.is_valid(correct),
                "correct": pc.fill_null(correct, 0),
            }
        )
        counts = flags.group_by("method").aggregate(
            [([], "count_all"), ("error", "sum"), ("scored", "sum"), ("correct", "sum")]
        )
        for row in counts.to_pylist():
            totals[row["method"]] = totals.get(row["method"], ScoreCounts()) + ScoreCounts(
                rows=row["count_all"],
                errors=row["error_sum"],
                scored=row["scored_sum"],
                correct=row["correct_sum"],
            )
    return dict(sorted(totals.items()))


def sentences_note(exact: float, contained: float) -> str:
    """What to say if answers are sentences that exact match takes for wrong; "" if they are not.

    Args:
        exact, contained: shares of the scored answers that are an accepted one, or contain it.
    """
    if contained < MANY_CONTAINED or exact > contained / 2:
        return ""
    return (
        f"exact match is {exact:.1%}, but {contained:.1%} of the answers contain an accepted one: the model "
        'answers in sentences, such as "The capital of France is Paris." Compare by contains '
        "(evaluation.headline=contains, which scores this run anew with `flexray evaluate OUT --set ..`), or "
        "ask for the bare answer in prompt.instruction and few-shots."
    )


def row_scores(table: pa.Table, metric: Metric | None) -> pa.Array | pa.ChunkedArray:
    """The metric of each row (see `accuracy_by_method`); null: the row is not scored, or the metric does not
    apply."""
    if metric is None:
        return table["correct"].cast(pa.int8())
    columns = (table[name].to_pylist() for name in ("correct", "prediction", "answers"))
    values = (
        None if correct is None else metric(prediction, answers)
        for correct, prediction, answers in zip(*columns, strict=True)
    )
    # NaN becomes null
    return pa.array(values, pa.float64(), from_pandas=True)


def wilson_interval(successes: float, trials: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (Wilson 1927): within [0, 1], and sound at 0 and 1.

    Raises:
        ValueError: not 0 <= successes <= trials, or no trials.
    """
    if not 0 <= successes <= trials or not trials:
        raise ValueError(f"{successes} successes of {trials} trials")
    share, z = successes / trials, Z_95
    shrink = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # At the ends the interval touches 0 or 1 exactly, which rounding may miss.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high
