"""The tables of the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from heapq import nlargest

from flexray.console.terminal import duration
from flexray.report.formatting import count, fixed, moment, share
from flexray.report.tables import Fact, Table
from flexray.report.work import RunTotals, WorkSummary
from flexray.sink.read.visible import Planned

MAX_KINDS = 50
MAX_SHARDS = 20


def totals_of(totals: RunTotals, planned: Planned) -> list[Fact]:
    """The figures on top."""
    work, rows = totals.work, totals.work.rows
    return [
        Fact("rows", f"{count(rows)} of {count(planned.rows)} planned"),
        Fact("answered", f"{count(work.answered)} ({share(work.answered, rows)})"),
        Fact("errors", f"{count(work.errors)} ({share(work.errors, rows)})", "bad" if work.errors else ""),
        Fact(
            "fallbacks",
            f"{count(work.fallbacks)} ({share(work.fallbacks, rows)})",
            "warn" if work.fallbacks else "",
        ),
        Fact("rows a second, while shards were in work", fixed(totals.rows_per_second)),
        Fact("time in which shards were in work", duration(totals.busy_seconds)),
        Fact("wall time", duration(totals.wall_seconds)),
        Fact("work time of all shards together", duration(work.seconds)),
    ]


def work_done(work: WorkSummary) -> list[Fact]:
    """What the engines did."""
    engine = work.engine
    return [
        Fact("time for prefill", duration(engine["prefill_seconds"])),
        Fact("time for decoding", duration(engine["decode_seconds"])),
        Fact("prompt tokens of all rows", count(work.prompt_tokens)),
        Fact("context tokens computed", count(engine["context_tokens"])),
        Fact("other tokens prefilled", count(engine["prefill_tokens"])),
        Fact("saved, as paraphrases begin alike", count(engine["shared_tokens"])),
        Fact("tokens generated", count(engine["generated_tokens"])),
        Fact("decoding steps", count(engine["decode_steps"])),
        Fact("tokens a step", fixed(work.tokens_per_step)),
    ]


def shares(what: str, rows: Counter[str]) -> Table:
    """Rows by one of their columns, the most frequent value first."""
    lines = [(name or "none", count(n), share(n, rows.total())) for name, n in rows.most_common()]
    return Table((what, "#rows", "#share"), lines)


def problems(kinds: Sequence[tuple[str, int]]) -> Table:
    """How many rows each kind of error has, or each reason of a fallback."""
    rows = [(count(rows), text) for text, rows in kinds[:MAX_KINDS]]
    if rest := kinds[MAX_KINDS:]:
        rows.append((count(sum(rows for _, rows in rest)), f"of {count(len(rest))} other kinds"))
    return Table(("#rows", "what"), rows)


def slowest_shards(totals: RunTotals) -> Table:
    """The slowest shards, the slowest first."""
    rows = []
    for shard in nlargest(MAX_SHARDS, totals.shards, key=lambda shard: shard.work.seconds):
        work = shard.work
        seconds = (work.seconds, work.engine["prefill_seconds"], work.engine["decode_seconds"])
        counts = (work.rows, work.errors, work.fallbacks)
        rows.append([shard.shard_id, *map(fixed, seconds), *map(count, counts), moment(shard.committed)])
    heads = ("#seconds", "#prefill s", "#decoding s", "#rows", "#errors", "#fallbacks", "#committed, UTC")
    return Table(("shard", *heads), rows)
