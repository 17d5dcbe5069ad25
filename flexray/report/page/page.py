"""The page about a run, made of one or two output folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from flexray import __version__
from flexray.console.terminal import printable
from flexray.evaluation import ScoreCounts
from flexray.evaluation.metrics import PLAIN_TOKENS
from flexray.evaluation.scores import MethodScores, collect_scores
from flexray.report import formatting
from flexray.report.files import fill_page, write_file
from flexray.report.page.compare import RunChange, compare_runs
from flexray.report.page.plots import Axis, Plot, difference_axis, histogram, share_axis, throughput
from flexray.report.page.read import RowNotes, RunFolder
from flexray.report.work import RunTotals, Shard
from flexray.sink import OutputFolder
from flexray.sink.run import utc_now
from flexray.storage import redact

MAX_SHARDS = 1_000  # the slowest ones
MAX_FALLBACKS = 500  # pairs of shard and reason, those of most rows


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
    slowest: tuple[Shard, ...]
    fallbacks: tuple[tuple[str, str, int], ...]  # shard, reason, rows
    more_fallbacks: int
    change: RunChange | None
    difference_axis: Axis


def default_page(output: str) -> Path:
    """Where the page of an output folder goes: beside it if it is local, else into `out/` of this folder."""
    place = str(OutputFolder(output)).rstrip("/")
    parent, _, name = place.rpartition("/")
    return Path("out" if "://" in place else parent) / f"{name}-report.html"


def write_page(output: str, html: Path, *, earlier: str | None = None) -> None:
    """Write the page about a run, finished or not.

    Args:
        earlier: the output folder of a run to compare it with.

    Raises:
        OutputError: a folder holds no run or cannot be read, the two cannot be compared, or the page
            cannot be written.
    """
    write_file(html, render(gather(output, earlier)), "--html")


def render(data: PageData) -> str:
    """The page: styles, script and plots are in it, and it asks nothing of a network."""
    f = formatting
    functions = (
        f.count,
        f.cut,
        f.duration,
        f.fixed,
        f.leaves,
        f.moment,
        f.p_value,
        f.percent,
        f.points,
        f.rate,
    )
    return fill_page(
        "run",
        style="run.css",
        filters={function.__name__: function for function in (*functions, f.share, redact)}
        | {"breakable": _breakable, "place": lambda share: f"{share:.2f}%"},
        page=data,
        percent_mark=f.percent_mark,
        points_mark=f.points_mark,
        version=__version__,
        now=f.moment(utc_now()),
    )


def gather(output: str, earlier: str | None = None) -> PageData:
    """Read a run, and an earlier one to compare it with. Rows are read shard by shard and not kept.

    Raises:
        OutputError: a folder holds no run or cannot be read, or the two cannot be compared.
    """
    run, notes = RunFolder.open(output), RowNotes()
    tables = notes.watch(run.tables())
    change = None
    if earlier is None:
        for _ in tables:
            pass
    else:
        before = RunFolder.open(earlier)
        scores = collect_scores(tables, PLAIN_TOKENS, where=str(run.folder))
        change = compare_runs(run, scores, before, _scores(before))
    shards = [Shard.of(manifest) for manifest in run.manifests.values()]
    totals = RunTotals.of(run.record, shards)
    fallbacks = sorted(
        (
            (shard.shard_id, reason, rows)
            for shard in shards
            for reason, rows in shard.work.fallback_reason.items()
        ),
        key=lambda line: -line[2],
    )
    accuracy = {method: notes.accuracy.get(method, ScoreCounts()) for method in run.record.methods}
    return PageData(
        run=run,
        totals=totals,
        notes=notes,
        accuracy=accuracy,
        accuracy_axis=share_axis([end for found in accuracy.values() for end in found.interval or ()]),
        throughput=throughput(totals.timed, totals.start, totals.end),
        histograms=tuple(_histograms(notes, shards)),
        slowest=tuple(sorted(shards, key=lambda shard: -shard.work.seconds)[:MAX_SHARDS]),
        fallbacks=tuple(fallbacks[:MAX_FALLBACKS]),
        more_fallbacks=len(fallbacks[MAX_FALLBACKS:]),
        change=change,
        difference_axis=difference_axis(_differences(change)),
    )


def _scores(run: RunFolder) -> dict[str, MethodScores]:
    return collect_scores(run.tables(), PLAIN_TOKENS, where=str(run.folder))


def _histograms(notes: RowNotes, shards: Sequence[Shard]) -> Iterator[tuple[str, Plot, str]]:
    seconds = Counter(shard.work.seconds for shard in shards)
    batches = Counter(mean for shard in shards if (mean := shard.work.tokens_per_step))
    for title, axis, plot in (
        ("Prompt length", "tokens", histogram(notes.prompt_tokens, unit="tokens")),
        ("Generated length", "tokens", histogram(notes.generated_tokens, unit="tokens")),
        ("Time of a shard", "seconds", histogram(seconds, unit="s", things="shards", whole=False)),
        (
            "Decoded at once",
            "tokens a step, the mean of a shard",
            histogram(batches, unit="tokens a step", things="shards", whole=False),
        ),
    ):
        if plot is not None:
            yield title, plot, axis


def _differences(change: RunChange | None) -> list[float]:
    found = [method.difference for method in change.methods] if change else []
    return [end for difference in found if difference for end in difference.interval]


def _breakable(name: str) -> Markup:
    """A method's name, which may go on in the next line behind each slash."""
    return escape(printable(name)).replace("/", Markup("/<wbr>"))
