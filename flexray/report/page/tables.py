"""The tables of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flexray.console.terminal import duration
from flexray.report.formatting import NOTHING, count, fixed, moment, p_value, percent, points, rate, share
from flexray.report.notes import RunNotes
from flexray.report.tables import Fact, Table, Toned
from flexray.report.work import RunTotals, WorkSummary
from flexray.sink.read.visible import Planned

if TYPE_CHECKING:
    from flexray.report.page.page import MethodChange

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
        ("Rows", count(work.rows), f"of {count(planned.rows_in_shards)} planned", ""),
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


def methods_compared(changes: Sequence[MethodChange]) -> Table:
    """Each method in the earlier run and in this one."""
    rows: list[list[str | Toned]] = []
    for change in changes:
        found, paired = change.difference, change.paired
        if found is None or paired is None:
            earlier, now = (percent(of.accuracy if of else None) for of in (change.earlier, change.now))
            rows.append([change.method, earlier, now, *[NOTHING] * 5, "0"])
            continue
        low, high = map(points, found.interval)
        rows.append([change.method, percent(found.other_mean), percent(found.mean)])
        rows[-1] += [Toned(points(found.difference), "strong"), f"{low} to {high}", p_value(paired.mcnemar_p)]
        rows[-1] += map(count, (paired.only_other_right, paired.only_method_right, paired.questions))
    heads = ["earlier", "now", "change, points", "95% interval", "McNemar p", "right only earlier"]
    heads += ["right only now", "rows in common"]
    return Table(("method", *(f"#{head}" for head in heads)), rows)


def totals_compared(*both: RunTotals) -> Table:
    """Figures of the earlier run, and of this one."""
    rows = [
        ("rows", *(count(of.work.rows) for of in both)),
        ("errors", *(share(of.work.errors, of.work.rows) for of in both)),
        ("fallbacks", *(share(of.work.fallbacks, of.work.rows) for of in both)),
        ("rows a second", *(rate(of.rows_per_second(of.busy_seconds)) for of in both)),
        ("wall time", *(duration(of.wall_seconds) for of in both)),
        ("work time", *(duration(of.work.seconds) for of in both)),
    ]
    return Table(("", "#earlier", "#now"), rows)
