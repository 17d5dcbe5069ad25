"""The summary of a finished run on the console: what was answered, how, and how fast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from flexray.console.terminal import printable, standard_output
from flexray.report.tables import Fact, print_facts
from flexray.report.work import WorkSummary

MAX_REASONS = 10


def print_summary(
    shards: Sequence[WorkSummary],
    *,
    methods: Sequence[str],
    seconds: float | None = None,
    console: Console | None = None,
) -> None:
    """Print the totals of a run.

    Args:
        shards: the work of each.
        methods: the names of the run's methods.
        seconds: the run's wall time. None: rows/s is given for one worker, from the shards' own times.
        console: where to print. None: standard output.
    """
    # a log or a job's output has no width of its own; rich would take 80 and fold names
    console = console or standard_output()
    work = sum(shards, WorkSummary())
    print_facts(_facts(work, len(shards), methods, seconds), console)
    for reason, rows in work.fallback_reason.most_common(MAX_REASONS):
        console.print(Text(f"fallback: {rows:,} rows: {printable(reason)}", "yellow"))
    if (more := len(work.fallback_reason) - MAX_REASONS) > 0:
        console.print(Text(f"... and {more:,} more reasons", "dim"))


def _facts(work: WorkSummary, shards: int, methods: Sequence[str], seconds: float | None) -> Iterator[Fact]:
    yield Fact("methods" if len(methods) > 1 else "method", ", ".join(methods))
    yield Fact("shards", f"{shards:,}")
    yield Fact("rows", f"{work.rows:,}")
    yield Fact("answered", f"{work.answered:,}")
    yield Fact("errors", f"{work.errors:,}", "bad" if work.errors else "")
    used = (f"{name or 'none'} {rows:,}" for name, rows in work.backend_used.most_common())
    yield Fact("backend used", ", ".join(used) or "-")
    whose = "" if seconds is not None else " of work, per worker"
    seconds = work.seconds if seconds is None else seconds
    took = f"({work.rows:,} rows in {seconds:,.1f} s{whose})"
    yield Fact("speed", f"{work.rows / seconds:,.2f} rows/s  {took}" if seconds > 0 else "not measured")
