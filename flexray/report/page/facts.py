"""Everything that a page tells, read from one or two output folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flexray.evaluation import MethodAccuracy
from flexray.evaluation.metrics import PLAIN_TOKENS
from flexray.evaluation.scores import MethodScores, collect_scores
from flexray.report.page.compare import RunChange, compare_runs
from flexray.report.page.folder import RunFolder
from flexray.report.page.plots import Axis, Plot, difference_axis, histogram, share_axis, throughput
from flexray.report.page.rows import RowNotes
from flexray.report.page.shards import Shard, Totals

MAX_SHARDS = 1_000  # the slowest ones
MAX_FALLBACKS = 500  # pairs of shard and reason, those of most rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What the template is given."""

    run: RunFolder
    totals: Totals
    notes: RowNotes
    accuracy: dict[str, MethodAccuracy]  # by method, in the run's order
    accuracy_axis: Axis
    throughput: Plot | None
    histograms: tuple[tuple[str, Plot, str], ...]  # title, plot, what its axis counts
    slowest: tuple[Shard, ...]
    fallbacks: tuple[tuple[str, str, int], ...]  # shard, reason, rows
    more_fallbacks: int
    change: RunChange | None
    difference_axis: Axis


def gather(output: str, earlier: str | None = None) -> Facts:
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
    totals = Totals.of(run.record, run.manifests.values(), shards)
    fallbacks = sorted(
        ((shard.shard_id, reason, rows) for shard in shards for reason, rows in shard.fallbacks.items()),
        key=lambda line: -line[2],
    )
    accuracy = {method: notes.accuracy.get(method, MethodAccuracy()) for method in run.record.methods}
    return Facts(
        run=run,
        totals=totals,
        notes=notes,
        accuracy=accuracy,
        accuracy_axis=share_axis([end for found in accuracy.values() for end in found.interval or ()]),
        throughput=throughput(totals.timed, totals.start, totals.end),
        histograms=tuple(_histograms(notes, shards)),
        slowest=tuple(sorted(shards, key=lambda shard: -shard.seconds)[:MAX_SHARDS]),
        fallbacks=tuple(fallbacks[:MAX_FALLBACKS]),
        more_fallbacks=len(fallbacks[MAX_FALLBACKS:]),
        change=change,
        difference_axis=difference_axis(_differences(change)),
    )


def _scores(run: RunFolder) -> dict[str, MethodScores]:
    return collect_scores(run.tables(), PLAIN_TOKENS, where=str(run.folder))


def _histograms(notes: RowNotes, shards: Sequence[Shard]) -> Iterator[tuple[str, Plot, str]]:
    seconds = Counter(shard.seconds for shard in shards)
    batches = Counter(shard.engine.tokens_per_step for shard in shards if shard.engine.tokens_per_step)
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
