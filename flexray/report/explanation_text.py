"""An explanation in the terminal, at most 100 columns wide."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flexray.console.terminal import printable
from flexray.report.explain import Explanation
from flexray.report.explain.explanation import Answer, Branch, Step
from flexray.report.explanation_facts import facts_of, own_segments, percent, positions_of
from flexray.report.regions import is_context, one_line, region_colours

WIDTH = 100
MAX_ANSWERS = 10  # shown in full
MAX_COLUMNS = 8  # parts with a column of their own
STYLES = {"": "", "good": "green", "bad": "bold red"}


def print_explanation(explanation: Explanation, console: Console | None = None) -> None:
    """Print it: the summary, the segments, and for each answer its steps."""
    width = min(WIDTH, Console().width) if sys.stdout.isatty() else WIDTH
    console = console or Console(width=width)
    console.print(Text(printable(explanation.row_id), "bold"))
    console.print(_facts_table(explanation))
    console.print()
    console.print(_segments_table(explanation, console.width))
    shown = explanation.answers[:MAX_ANSWERS]
    for number, answer in enumerate(shown, start=1):
        if answer.steps:
            _print_answer(console, explanation, number, answer)
    if rest := explanation.answers[MAX_ANSWERS:]:
        console.print(Text(f"... and {len(rest)} more answers; --json and --html have them all", "dim"))


def _facts_table(explanation: Explanation) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for fact in facts_of(explanation):
        table.add_row(fact.name, Text(printable(fact.text), STYLES[fact.mood]))
    return table


def _segments_table(explanation: Explanation, width: int) -> Table:
    """Of the branches' own segments, those of the first one; the page has them all."""
    suffix, own = next(own_segments(explanation, 0), ("", ()))
    segments = (*explanation.segments, *own)
    colours = region_colours([segment.name for segment in segments])
    names = [*(s.name for s in explanation.segments), *(s.name + suffix for s in own)]
    table = _table()
    table.add_column("segment", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("positions", justify="right", no_wrap=True)
    # bounded, as rich would take the room of a long text from the other columns
    room = width - max(map(len, ["segment", *names])) - len("   tokens   positions   ")
    table.add_column("text", no_wrap=True, overflow="ellipsis", max_width=max(20, room))
    for name, segment in zip(names, segments, strict=True):
        table.add_row(
            Text(name, colours[segment.name]),
            f"{len(segment.tokens)}",
            positions_of(segment),
            Text(one_line("".join(token.text for token in segment.tokens))),
        )
    return table


def _print_answer(console: Console, explanation: Explanation, number: int, answer: Answer) -> None:
    if len(explanation.answers) > 1:
        (branch,) = answer.branches
        chosen = ", the row's prediction" if number == explanation.chosen + 1 else ""
        drawn = f", drawn (temperature {answer.draw.temperature:g})" if answer.draw else ""
        text = one_line(answer.text)
        console.print(
            Text(f"\nAnswer {number}, of P{branch.paraphrase} alone{drawn}{chosen}: {text}", "bold")
        )
    else:
        console.print()
    what = {
        "mean": "softmax of the weighted mean of the paraphrases' logits",
        "max": "the largest of the paraphrases' probabilities",
    }.get(explanation.fusion or "", "softmax of the logits")
    console.print(Text(f"Tokens, by the dense pass ({what}, %)", "dim"))
    console.print(_steps_table(answer))
    console.print(Text("\nAttention of the query that chose the token (mean of heads and layers, %)", "dim"))
    console.print(_attention_table(explanation.parts, answer))


def _steps_table(answer: Answer) -> Table:
    table = _table()
    table.add_column("step", justify="right", no_wrap=True)
    table.add_column("chosen", no_wrap=True, max_width=20, overflow="ellipsis")
    table.add_column("%", justify="right", no_wrap=True)
    table.add_column("best", overflow="fold")
    for number, step in enumerate(answer.steps, start=1):
        best = Text()
        for candidate in step.top:
            style = "bold" if candidate.id == step.id else ""
            gap = "   " if best else ""
            best.append(f"{gap}{quoted(candidate.text)} {percent(candidate.probability)}", style)
        wrong = step.rank > 1 and answer.draw is None
        table.add_row(
            f"{number}",
            Text(quoted(step.text), STYLES["bad"] if wrong else "bold"),
            percent(step.probability),
            best + _gap_text(step) if step.rank > 1 else best,
        )
    return table


def _gap_text(step: Step) -> Text:
    return Text(f"   (chosen: rank {step.rank}, behind by {step.gap:.2g} in log probability)", "dim")


def _attention_table(parts: Sequence[str], answer: Answer) -> Table:
    """A line for each step and branch, a column for each part, or for parts added up if there are many."""
    names, folded = fold_parts(parts)
    table = _table()
    table.add_column("step", justify="right", no_wrap=True)
    table.add_column("chosen", no_wrap=True, max_width=16, overflow="ellipsis")
    several = len(answer.branches) > 1
    if several:
        table.add_column("of", no_wrap=True)
    colours = region_colours(parts)
    for name in names:
        table.add_column(Text(name, colours.get(name, "")), justify="right", no_wrap=True)
    if folded:
        table.add_column("most", no_wrap=True)
    for t, step in enumerate(answer.steps):
        for number, branch in enumerate(answer.branches):
            head = [f"{t + 1}", Text(quoted(step.text), "bold")] if not number else ["", ""]
            label = [f"P{branch.paraphrase}"] if several else []
            table.add_row(*head, *label, *_shares(branch, t, parts, names, folded=folded))
    return table


def fold_parts(parts: Sequence[str]) -> tuple[list[str], bool]:
    """The columns, and whether paraphrases are added up in one: there are too many for a column each.
    Copies of the context are one column in any case."""
    names = list(dict.fromkeys("context" if is_context(name) else name for name in parts))
    if len(names) <= MAX_COLUMNS:
        return names, False
    return ["context", "paraphrases", "answer_prefix", "answer"], True


def _shares(
    branch: Branch, step: int, parts: Sequence[str], names: Sequence[str], *, folded: bool
) -> list[Text]:
    found = dict.fromkeys(names, 0.0)
    shares: np.ndarray = branch.mean_attention[step]
    most = ("", 0.0)
    for part, share in zip(parts, shares.tolist(), strict=True):
        name = "context" if is_context(part) else part
        if name not in found:
            name = "paraphrases"
            most = max(most, (part, share), key=lambda pair: pair[1])
        found[name] += share
    cells = [Text(percent(share)) for share in found.values()]
    return [*cells, Text(f"{most[0]} {percent(most[1])}")] if folded else cells


def quoted(text: str) -> str:
    """A token, so that its spaces can be seen."""
    return f'"{one_line(text)}"'


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
