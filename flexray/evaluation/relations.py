"""One method's scores by relation, the group of questions that a row names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flexray.evaluation.bootstrap import (
    Bootstrap,
    Estimate,
    Floats,
    Interval,
    estimate_mean,
    estimate_mean_of_means,
)
from flexray.evaluation.scores import MethodScores

NO_RELATION = ""


@dataclass(frozen=True, slots=True)
class RelationScores:
    """The scored rows of one relation."""

    relation: str
    questions: int
    correct: int  # the headline metric is 1
    interval: Interval | None  # of the headline metric; None: it applies to no row
    means: dict[str, float | None]  # by metric; None: it applies to no row


@dataclass(frozen=True, kw_only=True, slots=True)
class RelationSummary:
    """All scored rows that name a relation."""

    questions: int
    without_relation: int  # scored rows, left out here
    micro: dict[str, Estimate | None]
    """Each question weighs the same."""
    macro: dict[str, Estimate | None]
    """Each relation weighs the same; its questions are a stratum."""
    relations: tuple[RelationScores, ...]


def by_relation(scores: MethodScores, bootstrap: Bootstrap) -> RelationSummary | None:
    """Group a method's scored rows by relation, sorted by name. None: no row names one."""
    order = np.argsort(scores.relations, kind="stable")
    codes, starts = np.unique(scores.relations[order], return_index=True)
    rows_of = zip((scores.relation_names[code] for code in codes), np.split(order, starts[1:]), strict=False)
    groups = dict(sorted(rows_of))
    without = len(groups.pop(NO_RELATION, ()))
    if not groups:
        return None
    values = {metric: scores.values(metric) for metric in scores.metrics}
    every = np.concatenate(list(groups.values()))
    return RelationSummary(
        questions=len(every),
        without_relation=without,
        micro={metric: estimate_mean(values[metric][every], bootstrap) for metric in values},
        macro={
            metric: estimate_mean_of_means([values[metric][rows] for rows in groups.values()], bootstrap)
            for metric in values
        },
        relations=tuple(
            _relation_scores(name, values, rows, scores.headline, bootstrap) for name, rows in groups.items()
        ),
    )


def _relation_scores(
    name: str, values: dict[str, Floats], rows: np.ndarray, headline: str, bootstrap: Bootstrap
) -> RelationScores:
    known = {metric: kept[rows] for metric, kept in values.items()}
    means = {
        metric: None if np.isnan(kept).all() else float(np.nanmean(kept)) for metric, kept in known.items()
    }
    found = estimate_mean(known[headline], bootstrap)
    correct = int(np.count_nonzero(known[headline] == 1))
    return RelationScores(name, len(rows), correct, found.interval if found else None, means)
