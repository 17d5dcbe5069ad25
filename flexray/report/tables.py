"""Facts and tables, made once and shown in two ways: on the console here, on pages by `macros.html.j2`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich import box
from rich import table as rich_table
from rich.console import Console
from rich.text import Text

from flexray.console.terminal import printable
from flexray.report.formatting import cut

MAX_TEXT = 300
"""Characters of a cell on the console."""
STYLES = {"": "", "good": "green", "warn": "yellow", "bad": "bold red", "strong": "bold"}
"""What a tone is on the console; on pages it is a class."""


class Toned(NamedTuple):
    """A text that stands out."""

    text: str
    tone: str


class Fact(NamedTuple):
    """A line of a summary."""

    name: str
    text: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a head."""

    heads: Sequence[str]  # that of a column of numbers begins with "#", which is not shown
    rows: Sequence[Sequence[str | Toned]]


def toned(text: str | Toned) -> Toned:
    """A text as one with a tone."""
    return text if isinstance(text, Toned) else Toned(text, "")


def print_facts(facts: Iterable[Fact], console: Console) -> None:
    """Print a line for each. Texts are printed as they are, never read as rich markup."""
    table = rich_table.Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for fact in facts:
        table.add_row(fact.name, Text(printable(fact.text), STYLES[fact.tone]))
    console.print(table)


def print_table(table: Table, console: Console) -> None:
    """Print it; texts as in `print_facts`."""
    shown = rich_table.Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for head in table.heads:
        number = head.startswith("#")
        name = Text(head.removeprefix("#"))
        shown.add_column(name, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in table.rows:
        cells = map(toned, row)
        shown.add_row(*(Text(printable(cut(cell.text, MAX_TEXT)), STYLES[cell.tone]) for cell in cells))
    console.print(shown)
