"""What a run said, on the console."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from flexray.console.terminal import printable, standard_output
from flexray.errors import first_few
from flexray.report.formatting import cut
from flexray.report.notes import RunNotes
from flexray.report.tables import print_table

MAX_KINDS = 5
"""Kinds of errors that are printed."""
MAX_GOLD = 5
MAX_ANSWER = 200
"""Characters of a question or an answer."""


def print_answers(notes: RunNotes, *, output: str, console: Console | None = None) -> None:
    """Print accuracy by method, some answers, the most frequent errors, what looks odd, which files were left
    out as they are damaged, and what to do next.

    Args:
        output: the run's folder or URL, as the next commands name it.
        console: where to print. None: standard output.

    All texts are printed as they are, never read as rich markup.
    """
    console = console or standard_output()
    if notes.shards_read < (shards := len(notes.run.manifests)):
        console.print(Text(f"From {notes.shards_read:,} of {shards:,} shards:", "dim"))
    print_table(notes.accuracy_table, console)
    for example in notes.examples:
        _print_example(example, console)
    if notes.errors:
        rows = sum(rows for _, rows in notes.errors)
        console.print(
            Text(f"\n{rows:,} rows are errors. The most frequent, each with one of its rows", "bold")
        )
        for error, times in notes.errors[:MAX_KINDS]:
            console.print(_hung(f"  {times:,} x ", cut(error), "red"))
        if rest := notes.errors[MAX_KINDS:]:
            console.print(Text(f"  and {sum(rows for _, rows in rest):,} rows of other kinds", "dim"))
    for warning in notes.warnings:
        console.print(_hung("\nwarning: ", warning, "yellow"))
    damage = notes.run.damage
    for found in damage[:MAX_KINDS]:
        console.print(_hung("\nleft out: ", str(found), "red"))
    if damage:
        more = f"{len(damage) - MAX_KINDS} more files are damaged. " if len(damage) > MAX_KINDS else ""
        advice = f"flexray repair {shlex.quote(output)}, then the run again, computes what they held."
        console.print(Text(printable(more + advice), "bold"))
    console.print()
    for command, what in _next(notes, shlex.quote(output)):
        console.print(_hung(f"{command}  ", what, "dim"))


def _print_example(example: dict[str, Any], console: Console) -> None:
    console.print(_hung("\n", _text(example["question"]), "bold"))
    if example["answers"] is not None:
        gold = first_few(map(_text, example["answers"]), MAX_GOLD, " | ")
        console.print(_hung("  gold     ", gold))
    for answer in example["said"]:
        marks = {True: ("right", "green"), False: ("wrong", "red"), None: ("answer", "")}
        word, style = ("error", "red") if answer["error"] else marks[answer["right"]]
        said = _text(answer["error"] or answer["prediction"]) or "(empty)"
        method = f"  [{answer['method']}]" if len(example["said"]) > 1 else ""
        console.print(_hung(f"  {word:<9}", said + method, style))


def _text(text: str) -> str:
    return " ".join(cut(text, MAX_ANSWER).split())


def _hung(first: str, text: str, style: str = "") -> Text:
    """The beginning in a style, then the text."""
    return Text.assemble((first, style), printable(text))


def _next(notes: RunNotes, output: str) -> Sequence[tuple[str, str]]:
    """Commands that lead on from here."""
    commands = []
    if any(counts.correct < counts.scored for counts in notes.accuracy.values()):
        commands.append((f"flexray show {output} --wrong", "questions that were answered wrongly"))
    if any(counts.scored for counts in notes.accuracy.values()):
        commands.append((f"flexray evaluate {output}", "all metrics, methods compared in pairs"))
    commands.append((f"flexray report {output}", "a page with all answers, speed, fallbacks and errors"))
    commands.append((f"flexray export {output} --to answers.csv", "all rows in one file"))
    return commands
