"""The tables of the page."""

from __future__ import annotations

from collections.abc import Sequence

from flexray.console.terminal import duration
from flexray.report.formatting import count, fixed, moment, rate, share
from flexray.report.notes import RunNotes
from flexray.report.tables import Fact, Table
from flexray.report.work import RunTotals, WorkSummary
from flexray.sink.read.visible import Planned

MAX_KINDS = 50
MAX_SHARDS = 20
ENDS = {
    "eos": ("a", "end of text"),
    "newline": ("b", "newline"),
    "length": ("c", "length limit"),
    "stop": ("warn", "a stop text"),
    "candidate": ("a", "a candidate"),
    "error": ("bad", "error"),
}
"""By finish reason its colour and name."""


def tiles(totals: RunTotals, planned: Planned) -> list[tuple[str, str, str, str]]:
    """The figures on top: what, how much, a note, and a tone."""
    work, shards, of = totals.work, len(totals.shards), "of the rows"
    by_wall = f"{rate(totals.rows_per_second(totals.wall_seconds))} over the wall time"
    busy = f"shards in work for {duration(totals.busy_seconds)}"
    errors, fallbacks = "bad" if work.errors else "", "warn" if work.fallbacks else ""
    return [
        ("Rows", count(work.rows), f"of {count(planned.rows)} planned", ""),
        ("Answered", count(work.answered), f"{share(work.answered, work.rows)} {of}", ""),
        ("Errors", count(work.errors), f"{share(work.errors, work.rows)} {of}", errors),
        ("Fallbacks", count(work.fallbacks), f"{share(work.fallbacks, work.rows)} {of}", fallbacks),
        ("Rows a second", rate(totals.rows_per_second(totals.busy_seconds)), by_wall, ""),
        ("Wall time", duration(totals.wall_seconds), busy, ""),
        ("Work time", duration(work.seconds), "of all shards together", ""),
        ("Shards", count(shards), f"of {count(planned.shards)} planned", ""),
    ]


def shares(work: WorkSummary) -> dict[str, list[tuple[str, str, float, str]]]:
    """What the time went into, how answers end: of each part its colour, name, size, and this in words."""
    prefill, decoding = work.engine["prefill_seconds"], work.engine["decode_seconds"]
    other = max(0, work.seconds - prefill - decoding)
    seconds = [("a", "prefill", prefill), ("b", "decoding", decoding), ("c", "other", other)]
    return {
        "Work time": [(f"var(--{colour})", name, n, duration(n)) for colour, name, n in seconds],
        "Answers end with": [
            (f"var(--{colour})", name, n := work.finish_reason[reason], count(n))
            for reason, (colour, name) in ENDS.items()
        ],
    }


def work_done(work: WorkSummary) -> list[Fact]:
    """What the engines did."""
    engine, masks = work.engine, work.mask_cache
    return [
        Fact("prompt tokens of all rows", count(work.prompt_tokens)),
        Fact("context tokens computed", count(engine["context_tokens"])),
        Fact("other tokens prefilled", count(engine["prefill_tokens"])),
        Fact("saved, as paraphrases begin alike", count(engine["shared_tokens"])),
        Fact("tokens generated", count(engine["generated_tokens"])),
        Fact("decoding steps", count(engine["decode_steps"])),
        Fact("tokens a step", fixed(work.tokens_per_step)),
        Fact("mask cache hits", share(masks["hits"], masks["hits"] + masks["misses"])),
    ]


def problems(kinds: Sequence[tuple[int, str]]) -> Table:
    """How many rows each kind of error has, or each reason of a fallback."""
    rows = [(count(rows), text) for rows, text in kinds[:MAX_KINDS]]
    if rest := kinds[MAX_KINDS:]:
        rows.append((count(sum(rows for rows, _ in rest)), f"of {count(len(rest))} other kinds"))
    return Table(("#rows", "what"), rows)


def backends(notes: RunNotes, rows: int) -> Table:
    """Rows by the backend that was asked for and the one that answered."""
    found = notes.backends.most_common()
    lines = [(asked, used or "none", count(n), share(n, rows)) for (asked, used), n in found]
    return Table(("requested", "used", "#rows", "#share"), lines)


def slowest_shards(totals: RunTotals) -> Table:
    """The slowest shards, the slowest first."""
    rows = []
    for shard in totals.slowest(MAX_SHARDS):
        work = shard.work
        seconds = (work.seconds, work.engine["prefill_seconds"], work.engine["decode_seconds"])
        cells = [shard.shard_id, *map(fixed, seconds), count(work.rows), fixed(work.rows_per_second, 2)]
        cells += [count(work.errors), count(work.fallbacks), fixed(work.tokens_per_step)]
        rows.append([*cells, moment(shard.committed)])
    heads = ("seconds", "prefill s", "decoding s", "rows", "rows/s", "errors", "fallbacks", "tokens a step")
    return Table(("shard", *(f"#{head}" for head in heads), "#committed, UTC"), rows)
