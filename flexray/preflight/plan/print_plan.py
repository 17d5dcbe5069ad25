"""Print a dry run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from flexray.console.standard_output import standard_output
from flexray.console.terminal import duration, printable
from flexray.engine.scheduler_config import GIB
from flexray.preflight.plan.cards import CardPlan, least_cards
from flexray.preflight.plan.dry_run import LEVELS, DataFigures, DryRun
from flexray.preflight.plan.estimates import TimeEstimate
from flexray.preflight.plan.memory import MemoryPlan
from flexray.preflight.plan.sample import SampleFigures, Spread

BAR = 40  # characters of the histogram's longest
STYLES = {"fail": "bold red", "warn": "yellow"}


def print_plan(plan: DryRun, *, console: Console | None = None) -> None:
    """Print a plan, then its problems, then the verdict. Names are never taken for markup.

    Args:
        console: where to print. None: standard output.
    """
    console = console or standard_output()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _lines(plan):
        table.add_row(name, Text(printable(text)))
    console.print(table)
    for problem in plan.problems:
        console.print()
        level = (LEVELS[problem.status], STYLES[problem.status])
        console.print(Text.assemble(level, f": {problem.check}: {printable(problem.what)}"))
    errors = sum(problem.status == "fail" for problem in plan.problems)
    warnings = len(plan.problems) - errors
    counts = f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    verdict = ("ready", "bold green") if plan.ready else ("not ready", "bold red")
    console.print()
    console.print(Text.assemble(verdict, f": {counts}"))


def _lines(plan: DryRun) -> Iterator[tuple[str, str]]:
    yield "output", plan.output
    yield "methods", ", ".join(plan.methods) or "-"
    if plan.data:
        yield from _data_lines(plan.data)
    if plan.sample:
        yield from _sample_lines(plan.sample)
    if plan.work:
        work = plan.work
        yield (
            "work",
            f"for a question {work.prefill_tokens:,.0f} tokens to prefill, beside the context; answers to "
            f"decode: {work.answers:.3g}, each of up to {plan.max_new_tokens} tokens",
        )
    if plan.memory:
        yield from _memory_lines(plan, plan.memory)
        yield from _card_lines(plan.cards)
    if plan.room:
        yield "disk", f"{decimal(plan.room.bytes)} ({plan.room.basis})"
    for estimate in plan.estimates:
        yield "time", _time(estimate)
    if plan.data and plan.data.left_rows and not plan.estimates:
        yield (
            "time",
            "not estimated: nothing is committed here to go by, and no peak of the device is known. Give "
            "--like OUT, the output of a run of this kind, or --gpu NAME.",
        )


def _data_lines(data: DataFigures) -> Iterator[tuple[str, str]]:
    yield (
        "data",
        f"{data.name}: {data.rows:,} rows in {data.shards:,} shards of {_files(data.files)}; "
        f"{data.output_rows:,} output rows",
    )
    yield (
        "committed",
        f"{data.committed_rows:,} output rows in {data.committed_shards:,} shards; left: "
        f"{data.left_rows:,} in {data.left_shards:,}",
    )


def _sample_lines(sample: SampleFigures) -> Iterator[tuple[str, str]]:
    yield "sample", f"{sample.rows:,} rows, {sample.faulty:,} faulty"
    for fault in sample.faults:
        yield "", fault
    if sample.prompt_tokens and sample.paraphrases:
        yield (
            "prompt",
            f"{_spread(sample.prompt_tokens)} tokens, of which {sample.context_tokens:,} are the context and "
            f"{sample.answer_prefix_tokens:,} the answer prefix",
        )
        width = max(len(f"{high:,}") for _, high, _ in sample.histogram)
        most = max(rows for _, _, rows in sample.histogram)
        for low, high, rows in sample.histogram:
            bar = "#" * max(round(BAR * rows / most), rows > 0) + " " * bool(rows)
            yield "", f"{low:>{width},} to {high:>{width},}  {bar}{rows:,}"
        yield "paraphrases", f"{_spread(sample.paraphrases)} a row"


def _memory_lines(plan: DryRun, memory: MemoryPlan) -> Iterator[tuple[str, str]]:
    device = plan.device
    has = f"{device.memory / GIB:.1f} GiB" if device.memory else "whose memory is not known"
    yield "device", f"{device.name}, {has}"
    yield (
        "weights",
        f"{memory.parameters / 1e6:,.1f} million parameters in {memory.dtype}: "
        f"{memory.weight_bytes / GIB:.2f} GiB" + (f" on each of {memory.ranks}" if memory.ranks > 1 else ""),
    )
    yield (
        "KV cache",
        f"{memory.cache_slots:,} slots of {memory.kv_bytes_per_token:,} bytes: "
        f"{memory.cache_bytes / GIB:.2f} GiB",
    )
    least = ""
    if memory.questions_at_once < memory.wanted_at_once:
        least = f", not {memory.wanted_at_once:,}: the memory holds {memory.most_slots:,} slots"
    yield "batch", f"{memory.questions_at_once:,} questions at once{least}"
    yield (
        "memory",
        f"{memory.needed / GIB:.2f} GiB in all, with {memory.activation_bytes / GIB:.2f} GiB for the largest "
        "prefill pass"
        + (f" and about {memory.cuda_bytes / GIB:.1f} GiB for CUDA" if memory.cuda_bytes else ""),
    )


def _card_lines(cards: Sequence[CardPlan]) -> Iterator[tuple[str, str]]:
    """A line for each quantisation: the least tensor_parallel that fits, and what each takes."""
    name = "cards"
    for quantization in dict.fromkeys(card.quantization for card in cards):
        own = [card for card in cards if card.quantization == quantization]
        weights = ", ".join(f"{c.tensor_parallel}: {c.weight_bytes / GIB:.2f}" for c in own)
        least = least_cards(own, quantization)
        fits = f"fits with engine.tensor_parallel {least}" if least else "fits with none"
        fits = "" if own[0].fits is None else f"{fits}; "
        yield name, f"{own[0].numbers}: {fits}GiB of weights on each card by tensor_parallel: {weights}"
        name = ""


def _time(estimate: TimeEstimate) -> str:
    hours = "" if estimate.gpu_hours is None else f", {_figure(estimate.gpu_hours)} GPU-hours"
    return (
        f"{duration(estimate.seconds)}{hours}, and start-up on top; {_figure(estimate.rows_per_second)} "
        f"output rows/s of each actor (actors: {estimate.actors}). "
        f"{estimate.basis[0].upper()}{estimate.basis[1:]}"
    )


def _figure(value: float) -> str:
    """The number with three significant digits, or all digits before the point."""
    if 0 < value < 0.01:
        return "less than 0.01"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def _spread(spread: Spread) -> str:
    if spread.min == spread.max:
        return f"{spread.min:,}"
    return f"{spread.min:,} to {spread.max:,} (median {spread.median:,}, p95 {spread.p95:,})"
