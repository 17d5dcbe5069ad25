"""The page about a run, made of one or two output folders."""

from __future__ import annotations

import collections
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from flexray import __version__
from flexray.console.terminal import duration, printable
from flexray.evaluation import Bootstrap, ScoreCounts
from flexray.evaluation.answer_metrics import exact_match
from flexray.evaluation.metrics import title as metric_title
from flexray.evaluation.paired import Comparison, Difference, compare
from flexray.evaluation.scores import MethodScores, collect_scores
from flexray.report import formatting
from flexray.report.output_files import fill_page, write_file
from flexray.report.page.plots import Axis, Plot, difference_axis, histogram, share_axis, throughput
from flexray.report.run_folder import RowNotes, RunFolder
from flexray.report.work import RunTotals, Shard
from flexray.sink import OutputFolder
from flexray.sink.records import utc_now
from flexray.sink.records.differences import differences
from flexray.storage import redact

NUMBER_FILTERS = ("count", "fixed", "p_value", "percent", "points", "rate", "share")
TEXT_FILTERS = ("cut", "leaves", "moment")


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
    notes: RowNotes
    accuracy: dict[str, ScoreCounts]  # by method, in the run's order
    accuracy_axis: Axis
    throughput: Plot | None
    histograms: tuple[tuple[str, Plot, str], ...]  # title, plot, what its axis counts
    slowest: list[Shard]  # first
    fallbacks: list[tuple[str, str, int]]  # shard, reason, rows; most rows first
    change: RunChange | None
    difference_axis: Axis


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
    """The page, with its styles, script and plots in it: a browser loads nothing else."""
    return fill_page(
        "run",
        style="run.css",
        filters={name: getattr(formatting, name) for name in (*NUMBER_FILTERS, *TEXT_FILTERS)}
        | {
            "duration": duration,
            "metric_title": metric_title,
            "redact": redact,
            "breakable": _breakable,
            "place": lambda share: f"{share:.2f}%",
        },
        page=data,
        percent_mark=formatting.percent_mark,
        points_mark=formatting.points_mark,
        version=__version__,
        now=formatting.moment(utc_now()),
    )


def gather(output: str, earlier: str | None = None, *, everything: bool = False) -> PageData:
    """Read a run, and an earlier one to compare it with. One shard's rows are in memory at a time.

    Raises:
        OutputError: a folder holds no run or cannot be read, or the two cannot be compared.
    """
    run = RunFolder.open(output, everything=everything)
    notes = RowNotes(run.headline.metric)
    tables, change = notes.watch(run.tables()), None
    if earlier is None:
        collections.deque(tables, maxlen=0)  # reads them
    else:
        before = RunFolder.open(earlier, everything=everything)
        metrics = {run.headline.name: run.headline.metric or exact_match}
        scores, scores_then = (
            collect_scores(rows, metrics, where=str(folder.folder))
            for folder, rows in ((run, tables), (before, before.tables()))
        )
        change = _compare(run, scores, before, scores_then)
    totals = RunTotals.of(run.record, run.manifests.values())
    fallbacks = [
        (s.shard_id, reason, n) for s in totals.shards for reason, n in s.work.fallback_reason.items()
    ]
    accuracy = {method: notes.accuracy.get(method, ScoreCounts()) for method in run.seen.methods}
    changed = change.methods if change else ()
    return PageData(
        run=run,
        totals=totals,
        notes=notes,
        accuracy=accuracy,
        accuracy_axis=share_axis([end for found in accuracy.values() for end in found.interval or ()]),
        throughput=throughput(totals.timed, totals.start, totals.end),
        histograms=tuple(_histograms(notes, totals.shards)),
        slowest=sorted(totals.shards, key=lambda shard: -shard.work.seconds),
        fallbacks=sorted(fallbacks, key=lambda fallback: -fallback[2]),
        change=change,
        difference_axis=difference_axis(
            [end for method in changed if method.difference for end in method.difference.interval]
        ),
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


def _histograms(notes: RowNotes, shards: Sequence[Shard]) -> Iterator[tuple[str, Plot, str]]:
    seconds = Counter(shard.work.seconds for shard in shards)
    means = Counter(mean for shard in shards if (mean := shard.work.tokens_per_step))
    for title, axis, plot in (
        ("Prompt length", "tokens", histogram(notes.prompt_tokens, unit="tokens")),
        ("Generated length", "tokens", histogram(notes.generated_tokens, unit="tokens")),
        ("Time of a shard", "seconds", histogram(seconds, unit="s", things="shards", whole=False)),
        (
            "Decoded at once",
            "tokens a step, the mean of a shard",
            histogram(means, unit="tokens a step", things="shards", whole=False),
        ),
    ):
        if plot is not None:
            yield title, plot, axis


def _breakable(name: str) -> Markup:
    """A method's name, with a possible line break after each slash."""
    return escape(printable(name)).replace("/", Markup("/<wbr>"))
