"""An explanation in the terminal, at most 100 columns wide."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flexray.console.terminal import printable
from flexray.report.explain import Explanation
from flexray.report.explain.explanation import ExplainedAnswer, SequenceAttention
from flexray.report.explanation_lines import answer_title, own_segments, positions_of, summary_lines
from flexray.report.formatting import one_line, percentage
from flexray.report.mask_picture import segment_colours, segment_kind

WIDTH = 100
MAX_ANSWERS = 10  # shown in full
MAX_COLUMNS = 8  # segments with a column of their own
STYLES = {"": "", "good": "green", "bad": "bold red"}


def print_explanation(explanation: Explanation, console: Console | None = None) -> None:
    """Print it: the summary, the segments, and for each answer its steps."""
    width = min(WIDTH, Console().width) if sys.stdout.isatty() else WIDTH
    console = console or Console(width=width)
    console.print(Text(printable(explanation.row_id), "bold"))
    console.print(_lines_table(explanation))
    console.print()
    console.print(_segments_table(explanation, console.width))
    for index, answer in enumerate(explanation.answers[:MAX_ANSWERS]):
        if answer.steps:
            title = answer_title(explanation, index)
            console.print(Text(f"\n{title}" if title else "", "bold"))
            _print_answer(console, explanation, answer)
    if rest := explanation.answers[MAX_ANSWERS:]:
        console.print(Text(f"... and {len(rest)} more answers; --json and --html have them all", "dim"))


def _lines_table(explanation: Explanation) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for line in summary_lines(explanation):
        table.add_row(line.name, Text(printable(line.text), STYLES[line.mood]))
    return table


def _segments_table(explanation: Explanation, width: int) -> Table:
    """Of the sequences' own segments, those of the first one; the page has them all."""
    own = list(own_segments(explanation, 0))[:2]
    named = {s.name: s for s in explanation.segments} | {s.name + suffix: s for suffix, s in own}
    colours = segment_colours(explanation.segment_names)
    table = _table()
    table.add_column("segment", no_wrap=True)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("positions", justify="right", no_wrap=True)
    # bounded, as rich would take the room of a long text from the other columns
    room = width - max(map(len, ["segment", *named])) - len("   tokens   positions   ")
    table.add_column("text", no_wrap=True, overflow="ellipsis", max_width=max(20, room))
    for name, segment in named.items():
        table.add_row(
            Text(name, colours[segment.name]),
            f"{len(segment.tokens)}",
            positions_of(segment),
            Text(one_line("".join(token.text for token in segment.tokens))),
        )
    return table


def _print_answer(console: Console, explanation: Explanation, answer: ExplainedAnswer) -> None:
    what = {
        "mean": "softmax of the weighted mean of the paraphrases' logits",
        "max": "the largest of the paraphrases' probabilities",
    }.get(explanation.fusion or "", "softmax of the logits")
    console.print(Text(f"Tokens, by the dense pass ({what}, %)", "dim"))
    console.print(_steps_table(answer))
    console.print(Text("\nAttention of the query that chose the token (mean of heads and layers, %)", "dim"))
    console.print(_attention_table(explanation.segment_names, answer))


def _steps_table(answer: ExplainedAnswer) -> Table:
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
            best.append(f"{gap}{quoted(candidate.text)} {percentage(candidate.probability)}", style)
        if step.rank > 1:
            gap = f"   (chosen: rank {step.rank}, behind by {step.gap:.2g} in log probability)"
            best.append(gap, "dim")
        wrong = step.rank > 1 and answer.draw is None
        table.add_row(
            f"{number}",
            Text(quoted(step.text), STYLES["bad"] if wrong else "bold"),
            percentage(step.probability),
            best,
        )
    return table


def _attention_table(segment_names: Sequence[str], answer: ExplainedAnswer) -> Table:
    """A line for each step and sequence, a column for each segment, or for several added up if there are
    many."""
    columns, folded = fold_segments(segment_names)
    table = _table()
    table.add_column("step", justify="right", no_wrap=True)
    table.add_column("chosen", no_wrap=True, max_width=16, overflow="ellipsis")
    several = len(answer.sequences) > 1
    if several:
        table.add_column("of", no_wrap=True)
    colours = segment_colours(segment_names)
    for name in columns:
        table.add_column(Text(name, colours.get(name, "")), justify="right", no_wrap=True)
    if folded:
        table.add_column("most", no_wrap=True)
    for t, step in enumerate(answer.steps):
        head: list[str | Text] = [f"{t + 1}", Text(quoted(step.text), "bold")]
        for sequence in answer.sequences:
            label = [f"P{sequence.paraphrase}"] if several else []
            table.add_row(*head, *label, *_shares(sequence, t, segment_names, columns, folded=folded))
            head = ["", ""]
    return table


def fold_segments(names: Sequence[str]) -> tuple[list[str], bool]:
    """The columns, and whether paraphrases are added up in one: there are too many for a column each. The
    context, its parts and copies are one column in any case."""
    columns = list(dict.fromkeys(_column(name) for name in names))
    if len(columns) <= MAX_COLUMNS:
        return columns, False
    return ["context", "paraphrases", "answer_prefix", "answer"], True


def _shares(
    sequence: SequenceAttention, step: int, names: Sequence[str], columns: Sequence[str], *, folded: bool
) -> list[Text]:
    found = dict.fromkeys(columns, 0.0)
    most = (0.0, "")
    for name, share in zip(names, sequence.attention[step].tolist(), strict=True):
        column = _column(name)
        if column not in found:
            column = "paraphrases"
            most = max(most, (share, name), key=lambda pair: pair[0])
        found[column] += share
    cells = [Text(percentage(share)) for share in found.values()]
    return [*cells, Text(f"{most[1]} {percentage(most[0])}")] if folded else cells


def _column(name: str) -> str:
    return "context" if segment_kind(name) in ("context", "copy") else name


def quoted(text: str) -> str:
    """A token, so that its spaces can be seen."""
    return f'"{one_line(text)}"'


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
