"""The page about a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from flexray.evaluation.metrics import title as metric_title
from flexray.report import formatting
from flexray.report.notes import RunNotes
from flexray.report.output_files import write_file
from flexray.report.page import tables
from flexray.report.page.answers import AnswerTable
from flexray.report.page.html import fill_page
from flexray.report.page.plots import Plot, accuracies, histogram, throughput
from flexray.report.run_folder import RunFolder
from flexray.report.work import RunTotals
from flexray.sink import OutputFolder
from flexray.sink.records import utc_now


@dataclass(frozen=True, kw_only=True, slots=True)
class PageData:
    """What the template is given."""

    run: RunFolder
    totals: RunTotals
    notes: RunNotes
    answers: AnswerTable

    @property
    def plots(self) -> dict[str, Plot | None]:
        """By name; None: there is nothing to draw."""
        totals, notes = self.totals, self.notes
        seconds = Counter(shard.work.seconds for shard in totals.shards)
        means = Counter(mean for shard in totals.shards if (mean := shard.work.tokens_per_step))
        return {
            "accuracy": accuracies(notes.accuracy),
            "throughput": throughput(totals.timed, totals.start, totals.end),
            "prompt": histogram("Prompt length", notes.prompt_tokens, "tokens", "rows"),
            "generated": histogram("Generated length", notes.generated_tokens, "tokens", "rows"),
            "seconds": histogram("Time of a shard", seconds, "seconds", "shards"),
            "decoded": histogram("Decoded at once", means, "tokens a step, the mean of a shard", "shards"),
        }


def default_page(output: str) -> Path:
    """The page's default path: next to a local output folder; for a URL in `out/` of the current folder."""
    place = str(OutputFolder(output)).rstrip("/")
    parent, _, name = place.rpartition("/")
    return Path("out" if "://" in place else parent) / f"{name}-report.html"


def write_page(output: str, html: Path, *, everything: bool = False) -> None:
    """Write the page about a run, finished or not.

    Args:
        everything: also methods and rows that the last recipe does not name.

    Raises:
        OutputError: the folder holds no run or cannot be read, or the page cannot be written.
    """
    data = gather(output, everything=everything)
    page = fill_page(
        data.answers.tree(),
        page=data,
        tables=tables,
        headline=metric_title(data.run.headline.name),
        now=formatting.moment(utc_now()),
    )
    write_file(html, page, "--html")


def gather(output: str, *, everything: bool = False) -> PageData:
    """Read a run. One shard's rows are in memory at a time, beside the page's answers.

    Raises:
        OutputError: the folder holds no run or cannot be read.
    """
    run = RunFolder.open(output, everything=everything)
    notes, answers = RunNotes(run), AnswerTable(run.seen.methods, run.headline.metric)
    for table in run.tables():
        notes.add(table)
        answers.add(table)
    return PageData(
        run=run,
        totals=RunTotals.of(run.record, run.manifests.values()),
        notes=notes,
        answers=answers,
    )
