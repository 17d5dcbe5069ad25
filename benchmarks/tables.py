"""Results as tables: the same rows for the terminal and for docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table as RichTable

HEADLINE = ("shared_context", "restart")
AXIS_TITLES = {
    "paraphrases": "paraphrases of a sample",
    "context": "tokens of the context",
    "new_tokens": "new tokens",
    "max_num_seqs": "max_num_seqs",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    notes: tuple[str, ...] = ()

    def for_terminal(self) -> RichTable:
        """As rich prints it; notes below."""
        shown = RichTable(
            title=escape(self.title), title_justify="left", caption_justify="left",
            caption=escape("\n".join(self.notes)) or None,
        )  # fmt: skip
        for i, column in enumerate(self.columns):
            shown.add_column(escape(column), justify="right" if i else "left", no_wrap=not i)
        for row in self.rows:
            shown.add_row(*map(escape, row))
        return shown

    def for_markdown(self) -> str:
        """As a Markdown table; notes below."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join([f"**{self.title}**", table, *self.notes])


def heading(result: dict[str, Any]) -> str:
    """Where, with what, at which commit, by which command."""
    machine = result["machine"]
    quick = " (QUICK: only for trying)" if result["quick"] else ""
    return (
        f"{machine['hardware']}; torch {machine['torch']}, transformers {machine['transformers']}, "
        f"triton {machine['triton']}, python {machine['python']}\n"
        f"commit {result['commit']}, {result['when']}: {result['command']}{quick}"
    )


def tables_of(entry: dict[str, Any], device: str) -> Iterator[Table]:
    """All tables of one shape."""
    if entry.get("vllm"):
        yield _vllm(entry)
    if "flexray" in entry:
        yield _speed(entry)
        yield _engine(entry, device)
        yield _checks(entry)
    if "growth" in entry:
        yield _growth(entry)


def last_line(entry: dict[str, Any]) -> str:
    """The three ratios of shared_context/restart; `-` for what was not measured."""
    own = _headline(entry)
    ratios = (
        ("vs_script", _script(entry), 1),
        ("vs_generate", _rate(entry.get("generate")), 2),
        ("of_limit", _rate(entry.get("limit")), 3),
    )
    return " ".join(f"{name}={_ratio(own, other, digits)}" for name, other, digits in ratios)


def _speed(entry: dict[str, Any]) -> Table:
    script, generate, limit = _script(entry), _rate(entry.get("generate")), _rate(entry.get("limit"))
    rows: list[Sequence[str]] = []

    def add(name: str, rate: float, *, comparable: bool = True) -> None:
        others = ((script, 1), (generate, 2), (limit, 3)) if comparable else ()
        ratios = [_ratio(rate, other, digits) for other, digits in others] or ["-"] * 3
        rows.append([name, f"{rate:.4g}", *ratios])

    scaled = False
    for row in entry["script"]:
        part = row["tokens_measured"] < row["tokens"]
        scaled |= part
        add(f"script, {row['variant']}" + (f" (from {row['tokens_measured']} tokens)" if part else ""),
            row["samples_per_second"])  # fmt: skip
    if entry.get("generate"):
        add(f"generate, SDPA, {entry['generate']['prompts']} prompts at once", generate)
    for row in entry["flexray"]:
        add(f"flexray, {_name(row)}", row["samples_per_second"], comparable=not row["spread"])
    if entry.get("limit"):
        add("limit: matrix products only", limit)
    notes = ["vs script: against the fastest variant of the script. vs generate: it fuses nothing."]
    if scaled:
        notes.append(
            "Where a sample takes too long, some of its 16 tokens were measured and scaled up to 16."
        )
    if lim := entry.get("limit"):
        notes.append(
            f"Limit: linear layers at {lim['prefill_tokens_per_second']:.0f} tokens/s "
            f"({lim['prefill_tokens']} at once) and {lim['decode_seconds'] * 1e3:.2f} ms for a step of "
            f"{lim['decode_rows']} rows with lm_head; the context is shared by all samples."
        )
    title = (
        f"{entry['title']}, {entry['dtype']}: one sample = 5 paraphrases of 136 + 24 tokens, 16 new tokens"
    )
    return Table(
        title=title,
        columns=("what", "samples/s", "vs script", "vs generate", "of limit"),
        rows=rows,
        notes=tuple(notes),
    )


def _vllm(entry: dict[str, Any]) -> Table:
    found = entry["vllm"]
    return Table(
        title=f"{entry['title']}: flexray beside vLLM {found['version']}, samples/s",
        columns=("work", "flexray", "vLLM", "flexray / vLLM"),
        rows=[
            [
                f"{row['work']}, {row['precision']}",
                f"{row['flexray']:.1f}",
                f"{row['vllm']:.1f}",
                f"{row['flexray'] / row['vllm']:.2f}",
            ]
            for row in found["rows"]
        ],
        notes=(
            "one prompt: the same tokens in both; flexray isolates the paraphrases from each other, vLLM "
            "attends causally to those before. per_prompt: an answer to each of the 5 paraphrases. flexray's "
            "answers depend on the row alone (deterministic), vLLM's do not.",
        ),
    )


def _engine(entry: dict[str, Any], device: str) -> Table:
    rows = [
        [
            _name(row),
            str(row["samples"]),
            f"{row['seconds']:.2f}",
            f"{row['prefill_seconds']:.2f}",
            f"{row['decode_seconds']:.2f}",
            f"{row['other_seconds']:.2f}",
            f"{row['peak_bytes'] / 2**30:.1f}",
            str(row["max_num_seqs"]),
            str(row["pool_slots"]),
            f"{row['mask_hits']}/{row['mask_misses']}",
            str(row["graphs"]),
            f"{row['warm_up_seconds']:.0f}",
        ]
        for row in entry["flexray"]
    ]
    peak = "allocated on the GPU" if device == "cuda" else "resident in this process until then"
    return Table(
        title="flexray: seconds of one run (prefill, decode and other are the host's, means of the repeats)",
        columns=(
            "method", "samples", "total s", "prefill s", "decode s", "other s", "peak GiB", "rows",
            "pool slots", "mask hits/misses", "graphs", "warm-up s",
        ),
        rows=rows,
        notes=(
            f"Peak: at most {peak}. Masks and graphs: cache hits and misses, and graphs compiled, in all "
            "repeats after the warm-up. Total: the median of up to 3 runs, each with new samples.",
        ),
    )  # fmt: skip


def _checks(entry: dict[str, Any]) -> Table:
    rows = [
        [
            f"{row['layout']}/{row['positions']}",
            f"{row['equal']} of {row['tokens']}",
            "-" if row["equal"] == row["tokens"] else f"{row['widest_gap']:.4f}",
        ]
        for row in entry["checks"]
    ]
    return Table(
        title="Checked before timing: tokens that the plain oracle chooses too",
        columns=("method", "equal tokens", "oracle's lead where not"),
        rows=rows,
        notes=("The lead: best logit minus second best. In float32 any difference is a failure.",),
    )


def _growth(entry: dict[str, Any]) -> Table:
    rows = [
        [
            AXIS_TITLES[axis],
            str(point["value"]),
            str(point["samples"]),
            f"{point['samples_per_second']:.4g}",
            f"{point['prefill_seconds']:.2f}",
            f"{point['decode_seconds']:.2f}",
            str(point["graphs"]),
        ]
        for axis, points in entry["growth"].items()
        for point in points
    ]
    return Table(
        title=f"{entry['title']}: flexray, shared_context/restart; one thing grows, the rest as above",
        columns=("what grows", "value", "samples", "samples/s", "prefill s", "decode s", "graphs"),
        rows=rows,
    )


def _name(row: dict[str, Any]) -> str:
    spread = f", {24 - row['spread']} to {24 + row['spread']} tokens" if row["spread"] else ""
    return f"{row['layout']}/{row['positions']}{spread}"


def _headline(entry: dict[str, Any]) -> float:
    rates = [
        row["samples_per_second"]
        for row in entry.get("flexray", ())
        if (row["layout"], row["positions"]) == HEADLINE and not row["spread"]
    ]
    return rates[0] if rates else 0.0


def _script(entry: dict[str, Any]) -> float:
    return max((row["samples_per_second"] for row in entry.get("script", ())), default=0.0)


def _rate(part: dict[str, Any] | None) -> float:
    return part["samples_per_second"] if part else 0.0


def _ratio(own: float, other: float, digits: int) -> str:
    return f"{own / other:.{digits}f}" if own and other else "-"
