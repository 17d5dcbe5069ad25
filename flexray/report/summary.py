"""The summary of a finished run on the console: what was answered, how, and how fast."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flexray.console.standard_output import standard_output
from flexray.console.terminal import printable
from flexray.report.work import Shard, WorkSummary

MAX_SHARDS = 20
MAX_REASONS = 10


def print_summary(
    shards: Sequence[Shard],
    *,
    methods: Sequence[str],
    seconds: float | None = None,
    console: Console | None = None,
) -> None:
    """Print the totals of a run, then a line for each of the first MAX_SHARDS shards.

    Args:
        methods: the names of the run's methods.
        seconds: the run's wall time. None: rows/s is given for one worker, from the shards' own times.
        console: where to print. None: standard output.

    All names and reasons are printed as they are, never read as rich markup.
    """
    # a log or a job's output has no width of its own; rich would take 80 and fold the shards' names
    console = console or standard_output()
    work = WorkSummary.sum(shard.work for shard in shards)
    console.print(_totals_table(work, len(shards), methods, seconds))
    console.print()
    console.print(_shard_table(shards, work, with_correct=len(methods) == 1))
    reasons = work.fallback_reason
    if reasons:
        console.print(Text("\nFallbacks, by reason", "bold"))
        for reason, rows in reasons.most_common(MAX_REASONS):
            console.print(Text(f"  {rows:,} rows: {printable(reason)}"))
        if len(reasons) > MAX_REASONS:
            console.print(Text(f"  ... and {len(reasons) - MAX_REASONS:,} more reasons", "dim"))


def _totals_table(work: WorkSummary, shards: int, methods: Sequence[str], seconds: float | None) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    several = len(methods) > 1
    table.add_row("methods" if several else "method", Text(printable(", ".join(methods))))
    table.add_row("shards", f"{shards:,}")
    table.add_row("rows", f"{work.rows:,}")
    table.add_row("answered", f"{work.answered:,}")
    table.add_row("errors", Text(f"{work.errors:,}", "bold red" if work.errors else ""))
    table.add_row("backend used", _backends(work))
    table.add_row("speed", _speed(work, seconds))
    return table


def _speed(work: WorkSummary, seconds: float | None) -> str:
    whose = "" if seconds is not None else " of work, per worker"
    seconds = work.seconds if seconds is None else seconds
    if seconds <= 0:
        return "not measured"
    return f"{work.rows / seconds:,.2f} rows/s  ({work.rows:,} rows in {seconds:,.1f} s{whose})"


def _shard_table(shards: Sequence[Shard], total: WorkSummary, *, with_correct: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, show_footer=True)
    table.add_column("shard", footer="all", overflow="fold")
    for name in ("rows", "errors", "fallbacks", *["correct"] * with_correct):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("backend used", overflow="fold")
    table.add_column("seconds", justify="right", no_wrap=True)
    for shard in shards[:MAX_SHARDS]:
        table.add_row(Text(printable(shard.shard_id)), *_cells(shard.work, with_correct))
    if rest := shards[MAX_SHARDS:]:
        added = WorkSummary.sum(shard.work for shard in rest)
        table.add_row(f"... and {len(rest):,} more", *_cells(added, with_correct), style="dim")
    for column, cell in zip(table.columns[1:], _cells(total, with_correct), strict=True):
        column.footer = cell
    return table


def _cells(work: WorkSummary, with_correct: bool) -> list[Text]:
    """All columns but the first."""
    correct = f"{work.correct:,}/{work.scored:,}" if work.scored else "-"
    return [
        Text(f"{work.rows:,}"),
        Text(f"{work.errors:,}", "bold red" if work.errors else ""),
        Text(f"{work.fallbacks:,}", "yellow" if work.fallbacks else ""),
        *[Text(correct)] * with_correct,
        _backends(work),
        Text(f"{work.seconds:,.1f}"),
    ]


def _backends(work: WorkSummary) -> Text:
    used = work.backend_used.most_common()
    return Text(", ".join(f"{printable(name) or 'none'} {rows:,}" for name, rows in used) or "-")
