"""The page about a run, made of one or two output folders."""

from __future__ import annotations

import collections
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from flexray.evaluation import Bootstrap, ScoreCounts
from flexray.evaluation.answer_metrics import exact_match
from flexray.evaluation.metrics import title as metric_title
from flexray.evaluation.paired import Comparison, Difference, compare
from flexray.evaluation.scores import MethodScores, collect_scores
from flexray.report import formatting
from flexray.report.notes import RunNotes
from flexray.report.output_files import fill_page, write_file
from flexray.report.page import tables
from flexray.report.page.answers import AnswerTable
from flexray.report.page.plots import Plot, histogram, intervals, throughput
from flexray.report.run_folder import RunFolder
from flexray.report.work import RunTotals
from flexray.sink import OutputFolder
from flexray.sink.records import utc_now
from flexray.sink.records.differences import differences


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodChange:
    """A method of either run."""

    method: str
    now: MethodScores | None  # None: the run does not have it
    earlier: MethodScores | None
    paired: Comparison | None  # None: only one run has it

    @property
    def difference(self) -> Difference | None:
        """Of the headline metric, on the rows that both have scored; None: there are none."""
        return next(iter(self.paired.differences.values())) if self.paired else None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunChange:
    """What is different from the earlier run."""

    earlier: RunFolder
    totals: RunTotals  # of the earlier run
    methods: tuple[MethodChange, ...]
    lines: list[str]  # of configuration and versions, one for each key: earlier -> now


@dataclass(frozen=True, kw_only=True, slots=True)
class PageData:
    """What the template is given."""

    run: RunFolder
    totals: RunTotals
    notes: RunNotes
    accuracy: dict[str, ScoreCounts]  # by method, in the run's order
    answers: AnswerTable
    change: RunChange | None

    @property
    def plots(self) -> dict[str, Plot | None]:
        """By name; None: there is nothing to draw."""
        totals, notes, changed = self.totals, self.notes, self.change.methods if self.change else ()
        seconds = Counter(shard.work.seconds for shard in totals.shards)
        means = Counter(mean for shard in totals.shards if (mean := shard.work.tokens_per_step))
        scored = ((m, s.accuracy, s.interval) for m, s in self.accuracy.items() if s.accuracy is not None)
        return {
            "accuracy": intervals("Accuracy with its 95% interval", [(m, a, i) for m, a, i in scored if i]),
            "change": intervals(
                "Change of the accuracy with its 95% interval",
                ((m.method, m.difference.difference, m.difference.interval) for m in changed if m.difference),
                zero=True,
            ),
            "throughput": throughput(totals.timed, totals.start, totals.end),
            "prompt": histogram("Prompt length", notes.prompt_tokens, "tokens", "rows"),
            "generated": histogram("Generated length", notes.generated_tokens, "tokens", "rows"),
            "seconds": histogram("Time of a shard", seconds, "seconds", "shards"),
            "decoded": histogram("Decoded at once", means, "tokens a step, the mean of a shard", "shards"),
        }

    @property
    def problems(self) -> dict[str, list[tuple[int, str]]]:
        """What went wrong: rows and an example of each kind of error, and of each reason of a fallback."""
        reasons = self.totals.work.fallback_reason.most_common()
        return {
            "error rows, by what is wrong": [(kind.rows, kind.example) for kind in self.notes.errors],
            "rows that needed another backend, or fewer rows at once": [(n, reason) for reason, n in reasons],
        }


def default_page(output: str) -> Path:
    """The page's default path: next to a local output folder; for a URL in `out/` of the current folder."""
    place = str(OutputFolder(output)).rstrip("/")
    parent, _, name = place.rpartition("/")
    return Path("out" if "://" in place else parent) / f"{name}-report.html"


def write_page(output: str, html: Path, *, earlier: str | None = None, everything: bool = False) -> None:
    """Write the page about a run, finished or not.

    Args:
        earlier: the output folder of a run to compare it with.
        everything: also methods and rows that the last recipe does not name.

    Raises:
        OutputError: a folder holds no run or cannot be read, the two cannot be compared, or the page
            cannot be written.
    """
    write_file(html, render(gather(output, earlier, everything=everything)), "--html")


def render(data: PageData) -> str:
    """The page, with its style, script and plots in it: a browser loads nothing else."""
    return fill_page(
        "run",
        data.answers.tree(),
        page=data,
        tables=tables,
        headline=metric_title(data.run.headline.name),
        now=formatting.moment(utc_now()),
    )


def gather(output: str, earlier: str | None = None, *, everything: bool = False) -> PageData:
    """Read a run, and an earlier one to compare it with. One shard's rows are in memory at a time, beside the
    page's answers.

    Raises:
        OutputError: a folder holds no run or cannot be read, or the two cannot be compared.
    """
    run = RunFolder.open(output, everything=everything)
    notes, answers, change = RunNotes(run), AnswerTable(run.seen.methods, run.headline.metric), None

    def watched() -> Iterator[pa.Table]:
        for table in run.tables():
            notes.add(table)
            answers.add(table)
            yield table

    if earlier is None:
        collections.deque(watched(), maxlen=0)  # reads them
    else:
        before = RunFolder.open(earlier, everything=everything)
        metrics = {run.headline.name: run.headline.metric or exact_match}
        scores = collect_scores(watched(), metrics, where=str(run.folder))
        change = _compare(
            run, scores, before, collect_scores(before.tables(), metrics, where=str(before.folder))
        )
    return PageData(
        run=run,
        totals=RunTotals.of(run.record, run.manifests.values()),
        notes=notes,
        accuracy={method: notes.accuracy.get(method, ScoreCounts()) for method in run.seen.methods},
        answers=answers,
        change=change,
    )


def _compare(
    run: RunFolder, scores: dict[str, MethodScores], earlier: RunFolder, scores_then: dict[str, MethodScores]
) -> RunChange:
    """Compare methods of the same name, and the records."""
    changes = []
    for method in dict.fromkeys((*run.seen.methods, *earlier.seen.methods)):
        now, then = scores.get(method), scores_then.get(method)
        paired = None
        if now is not None and then is not None:
            name, name_then = (f"{folder.folder}: {method}" for folder in (run, earlier))
            paired = compare(name, now, name_then, then, Bootstrap())
        changes.append(MethodChange(method=method, now=now, earlier=then, paired=paired))
    return RunChange(
        earlier=earlier,
        totals=RunTotals.of(earlier.record, earlier.manifests.values()),
        methods=tuple(changes),
        lines=differences(_by_place(earlier.record.config), _by_place(run.record.config))
        + differences(earlier.record.provenance, run.record.provenance),
    )


def _by_place(tree: Any) -> Any:
    """The same tree with dictionaries for lists, so that their items are compared one by one."""
    if isinstance(tree, list):
        tree = {str(place): item for place, item in enumerate(tree, 1)}
    return {key: _by_place(item) for key, item in tree.items()} if isinstance(tree, dict) else tree
