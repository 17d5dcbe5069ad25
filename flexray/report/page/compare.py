"""A run beside an earlier one: each method on the rows that both have, and what was configured otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flexray.evaluation import Bootstrap
from flexray.evaluation.paired import Comparison, Difference, compare
from flexray.evaluation.scores import MethodScores
from flexray.report.page.read import RunFolder
from flexray.report.work import RunTotals, Shard
from flexray.sink.differences import differences


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodChange:
    """A method of either run."""

    method: str
    now: MethodScores | None  # None: the run does not have it
    earlier: MethodScores | None
    paired: Comparison | None  # None: only one run has it

    @property
    def difference(self) -> Difference | None:
        """Of exact match, on the rows that both have scored; None: there are none."""
        return self.paired.differences["exact_match"] if self.paired else None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunChange:
    """What is different from the earlier run."""

    earlier: RunFolder
    totals: RunTotals  # of the earlier run
    methods: tuple[MethodChange, ...]
    config: tuple[str, ...]  # a line for each key: earlier -> now
    provenance: tuple[str, ...]


def compare_runs(
    run: RunFolder,
    scores: Mapping[str, MethodScores],
    earlier: RunFolder,
    earlier_scores: Mapping[str, MethodScores],
) -> RunChange:
    """Compare methods of the same name, and the records.

    Raises:
        OutputError: the two have other accepted answers for the same row.
    """
    changes = []
    for method in dict.fromkeys((*run.record.methods, *earlier.record.methods)):
        now, before = scores.get(method), earlier_scores.get(method)
        paired = None
        if now is not None and before is not None:
            names = (f"{folder.folder}: {method}" for folder in (run, earlier))
            paired = compare(next(names), now, next(names), before, Bootstrap())
        changes.append(MethodChange(method=method, now=now, earlier=before, paired=paired))
    return RunChange(
        earlier=earlier,
        totals=RunTotals.of(earlier.record, [Shard.of(m) for m in earlier.manifests.values()]),
        methods=tuple(changes),
        config=tuple(differences(_by_place(earlier.record.config), _by_place(run.record.config))),
        provenance=tuple(differences(earlier.record.provenance, run.record.provenance)),
    )


def _by_place(tree: Any) -> Any:
    """The same tree with dictionaries for lists, so that their items are compared one by one."""
    if isinstance(tree, list):
        tree = {str(place): item for place, item in enumerate(tree, 1)}
    return {key: _by_place(item) for key, item in tree.items()} if isinstance(tree, dict) else tree
