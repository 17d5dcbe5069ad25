"""The summary of a finished run on the console: what was answered, how well, how, and how fast."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flexray.console.terminal import printable
from flexray.evaluation.accuracy import MethodAccuracy

MAX_SHARDS = 20
MAX_REASONS = 10
LOG_WIDTH = 120


def print_summary(
    shards: Sequence[Mapping[str, Any]],
    *,
    methods: Sequence[str],
    output: str,
    seconds: float | None = None,
    console: Console | None = None,
) -> None:
    """Print the totals of a run, then a line for each shard, of many of the first MAX_SHARDS.

    Rows of several methods answer the same questions, so their correct ones are not added up: what scores
    each method is named instead.

    Args:
        shards: for each shard the keys `shard_id`, `rows`, `errors`, `correct`, `scored` (counts),
            `backend_used` and `fallback_reason` (counts by name; "" for the rows without one) and
            `seconds` (what the shard took).
        methods: the names of the run's methods.
        output: the run's folder or URL.
        seconds: the run's wall time. None: rows/s is given for one worker, from the shards' own times.
        console: where to print. None: standard output.

    All names and reasons are printed as they are, never read as rich markup.
    """
    # a log or a job's output has no width of its own; rich would take 80 and fold the shards' names
    console = console or Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    console.print(_totals_table(shards, methods, output, seconds))
    console.print()
    console.print(_shard_table(shards, with_correct=len(methods) == 1))
    reasons = _nonblank(_add_up(shards, "fallback_reason"))
    if reasons:
        console.print(Text("\nFallbacks, by reason", "bold"))
        for reason, rows in reasons.most_common(MAX_REASONS):
            console.print(Text(f"  {rows:,} rows: {printable(reason)}"))
        if len(reasons) > MAX_REASONS:
            console.print(Text(f"  ... and {len(reasons) - MAX_REASONS:,} more reasons", "dim"))


def _totals_table(
    shards: Sequence[Mapping[str, Any]], methods: Sequence[str], output: str, seconds: float | None
) -> Table:
    total = MethodAccuracy(
        rows=sum(s["rows"] for s in shards),
        errors=sum(s["errors"] for s in shards),
        scored=sum(s["scored"] for s in shards),
        correct=sum(s["correct"] for s in shards),
    )
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    several = len(methods) > 1
    table.add_row("methods" if several else "method", Text(printable(", ".join(methods))))
    table.add_row("shards", Text(f"{len(shards):,}"))
    table.add_row("rows", Text(f"{total.rows:,}"))
    table.add_row("answered", Text(f"{total.answered:,}"))
    table.add_row("errors", Text(f"{total.errors:,}", "bold red" if total.errors else ""))
    by_method = f"by method: flexray evaluate {printable(shlex.quote(output))}"
    accuracy = by_method if several and total.scored else describe_accuracy(total)
    table.add_row("accuracy", Text(accuracy))
    table.add_row("backend used", _backends(_add_up(shards, "backend_used")))
    table.add_row("speed", Text(_describe_speed(shards, total.rows, seconds)))
    return table


def describe_accuracy(score: MethodAccuracy) -> str:
    """Accuracy, its interval and the counts behind them, in one line."""
    if score.accuracy is None or score.interval is None:
        return "not scored: no row has accepted answers"
    low, high = score.interval
    return (
        f"{score.accuracy:.1%}  (95% interval {low:.1%} to {high:.1%}; "
        f"{score.correct:,} of {score.scored:,} scored rows)"
    )


def _describe_speed(shards: Sequence[Mapping[str, Any]], rows: int, seconds: float | None) -> str:
    whose = "" if seconds is not None else " of work, per worker"
    seconds = sum(s["seconds"] for s in shards) if seconds is None else seconds
    if seconds <= 0:
        return "not measured"
    return f"{rows / seconds:,.2f} rows/s  ({rows:,} rows in {seconds:,.1f} s{whose})"


def _shard_table(shards: Sequence[Mapping[str, Any]], *, with_correct: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, show_footer=True)
    shown, rest = shards[:MAX_SHARDS], shards[MAX_SHARDS:]
    table.add_column("shard", footer="all", overflow="fold")
    for name in ("rows", "errors", "fallbacks", *["correct"] * with_correct):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("backend used", overflow="fold")
    table.add_column("seconds", justify="right", no_wrap=True)

    for shard in shown:
        table.add_row(Text(printable(shard["shard_id"])), *_cells([shard], with_correct))
    if rest:
        table.add_row(Text(f"... and {len(rest):,} more"), *_cells(rest, with_correct), style="dim")
    for column, cell in zip(table.columns[1:], _cells(shards, with_correct), strict=True):
        column.footer = cell
    return table


def _cells(shards: Sequence[Mapping[str, Any]], with_correct: bool) -> list[Text]:
    """The columns behind the first, for one shard or for several added up."""
    errors = sum(s["errors"] for s in shards)
    scored = sum(s["scored"] for s in shards)
    correct = f"{sum(s['correct'] for s in shards):,}/{scored:,}" if scored else "-"
    fallbacks = _nonblank(_add_up(shards, "fallback_reason")).total()
    return [
        Text(f"{sum(s['rows'] for s in shards):,}"),
        Text(f"{errors:,}", "bold red" if errors else ""),
        Text(f"{fallbacks:,}", "yellow" if fallbacks else ""),
        *[Text(correct)] * with_correct,
        _backends(_add_up(shards, "backend_used")),
        Text(f"{sum(s['seconds'] for s in shards):,.1f}"),
    ]


def _backends(counts: Counter[str]) -> Text:
    return Text(
        ", ".join(f"{printable(name) or 'none'} {rows:,}" for name, rows in counts.most_common()) or "-"
    )


def _add_up(shards: Sequence[Mapping[str, Any]], key: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for shard in shards:
        total.update(shard[key])
    return total


def _nonblank(counts: Counter[str]) -> Counter[str]:
    """Without "", the rows that needed no fallback."""
    return Counter({name: rows for name, rows in counts.items() if name})
