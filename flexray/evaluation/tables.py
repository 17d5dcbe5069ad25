"""An evaluation on the console: methods, paraphrases, relations, comparisons."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flexray.console.terminal import printable, standard_output
from flexray.evaluation.accuracy import sentences_note
from flexray.evaluation.bootstrap import Estimate, Interval
from flexray.evaluation.evaluate import Evaluation, MethodSummary
from flexray.evaluation.metrics import EXACT_MATCH, title
from flexray.evaluation.paired import Comparison, Difference
from flexray.evaluation.paraphrases import PositionAccuracy

LOG_WIDTH = 130  # below it the methods' names are folded
NAME_WIDTH = 32  # "attention/shared_context/restart"
NOTHING = "-"
MAX_DIFFERENCES = 20  # lines of settings and versions of a folder
SHOWN = 2
"""Metrics, from the headline one on, that are shown over relations and as differences."""


def print_evaluation(
    evaluation: Evaluation, *, by_relation: bool = False, console: Console | None = None
) -> None:
    """Print an evaluation as tables, and below them what the numbers are.

    Args:
        by_relation: print each relation of each method too.
        console: where to print. None: standard output.

    All names are printed as they are, never read as rich markup.
    """
    console = console or standard_output(LOG_WIDTH)
    methods = evaluation.methods
    tables = [_method_table(methods)]
    if any(method.paraphrases for method in methods):
        tables.append(_paraphrase_table(methods))
    if any(method.relations for method in methods):
        tables.append(_relation_means_table(methods))
        if by_relation:
            tables.append(_relation_table(methods))
    for other in dict.fromkeys(found.other for found in evaluation.comparisons):
        against = [found for found in evaluation.comparisons if found.other == other]
        tables.append(_comparison_table(against, other))
    for table in tables:
        console.print(table)
        console.print()
    for note in _notes(evaluation, by_relation):
        console.print(Text(printable(note)))


def _method_table(methods: Sequence[MethodSummary]) -> Table:
    table = _Table(
        "Methods, over their scored rows",
        ["method"],
        ["rows", "errors", "scored", *map(title, methods[0].metrics)],
    )
    for method in methods:
        cells = map(_estimate, method.metrics.values())
        table.add(_name(method.label), method.rows, method.errors, method.scored, *cells)
    return table


def _paraphrase_table(methods: Sequence[MethodSummary]) -> Table:
    table = _Table(
        f"Paraphrases answered alone, by {title(next(iter(methods[0].metrics)))}",
        ["method"],
        ["paraphrases", "mean", "any right", "every right", "consistency", "best place", "worst place"],
    )
    for method in methods:
        if found := method.paraphrases:
            cells = map(_estimate, (found.accuracy, found.any_right, found.every_right, found.consistency))
            places = map(_place, (found.best, found.worst))
            table.add(_name(method.label), found.paraphrases, *cells, *places)
    return table


def _relation_means_table(methods: Sequence[MethodSummary]) -> Table:
    shown = list(methods[0].metrics)[:SHOWN]
    titles = [f"{title(metric)}\n{mean}" for metric in shown for mean in ("micro", "macro")]
    table = _Table("Over relations", ["method"], ["relations", "questions", *titles])
    for method in methods:
        if found := method.relations:
            cells = [_estimate(means[metric]) for metric in shown for means in (found.micro, found.macro)]
            table.add(_name(method.label), len(found.relations), found.questions, *cells)
    return table


def _relation_table(methods: Sequence[MethodSummary]) -> Table:
    headline, *others = map(title, methods[0].metrics)
    table = _Table("By relation", ["relation", "method"], ["questions", headline, "interval", *others])
    lines = [
        (scores.relation, method.label, scores)
        for method in methods
        if method.relations
        for scores in method.relations.relations
    ]
    for relation, label, scores in sorted(lines, key=lambda line: line[0]):
        mean, *means = map(_percent, scores.means.values())
        interval = NOTHING if scores.interval is None else _interval(scores.interval)
        table.add(relation, _name(label), scores.questions, mean, interval, *means)
    return table


def _comparison_table(comparisons: Sequence[Comparison], other: str) -> Table:
    headline, *others = list(comparisons[0].differences)[:SHOWN]
    counts = ["questions", "both\nright", "only\nit", "only\nother", "none"]
    table = _Table(
        f"Difference from {other}, in points, on the questions that both answered",
        ["method"],
        [*counts, title(headline), "McNemar p", *map(title, others)],
    )
    for found in comparisons:
        difference, *more = (_difference(found.differences[metric]) for metric in (headline, *others))
        right = (found.both_right, found.only_method_right, found.only_other_right, found.neither_right)
        p = _p_value(found.mcnemar_p)
        table.add(_name(found.method), found.questions, *right, difference, p, *more)
    return table


def _notes(evaluation: Evaluation, by_relation: bool) -> list[str]:
    resamples, seed = evaluation.bootstrap.resamples, evaluation.bootstrap.seed
    notes = [
        "Intervals: 95 %. Of shares of right answers Wilson's; of other means, and of differences, by "
        f"bootstrap over questions ({resamples:,} resamples, seed {seed}).",
        f"Lemmas: {evaluation.lemmas}.",
    ]
    for method in evaluation.methods:
        exact, contained = (method.metrics.get(metric) for metric in (EXACT_MATCH, "contains"))
        if evaluation.settings.headline == EXACT_MATCH and exact and contained:
            note = sentences_note(exact.mean, contained.mean)
            notes += [f"{method.label}: {note}"] * bool(note)
    if len(evaluation.comparisons) > 1:
        notes.append(
            f"McNemar's p is exact, and not corrected for {len(evaluation.comparisons)} comparisons."
        )
    if not by_relation and any(method.relations for method in evaluation.methods):
        notes.append("--by-relation prints each relation.")
    notes += [
        f"{folder.folder}: {folder.committed_rows:,} of {folder.planned_rows:,} planned rows are committed."
        for folder in evaluation.folders
        if folder.committed_rows != folder.planned_rows
    ]
    for folder in evaluation.folders:
        lines = folder.differs
        more = f"\n  ... and {len(lines) - MAX_DIFFERENCES} more" if len(lines) > MAX_DIFFERENCES else ""
        if lines:
            what = "".join(f"\n  {line}" for line in lines[:MAX_DIFFERENCES])
            notes.append(f"{folder.folder}: what is other than in the first folder:{what}{more}")
    return notes


class _Table(Table):
    """Names on the left, numbers on the right."""

    def __init__(self, title: str, names: Sequence[str], numbers: Sequence[str]):
        super().__init__(
            title=Text(printable(title), "bold"),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
            show_edge=False,
        )
        for name in names:
            self.add_column(name, overflow="fold")
        for number in numbers:
            self.add_column(number, justify="right", overflow="fold")

    def add(self, *cells: str | int) -> None:
        """A row of texts and counts."""
        texts = (cell if isinstance(cell, str) else f"{cell:,}" for cell in cells)
        self.add_row(*(Text(printable(text)) for text in texts))


def _name(label: str) -> str:
    """A method's name, broken after its separators if it is long."""
    lines = [""]
    for part in re.findall(r"[^/: ]*[/: ]|[^/: ]+", label):
        if lines[-1] and len(lines[-1] + part) > NAME_WIDTH:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f}%"


def _interval(interval: Interval) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def _estimate(estimate: Estimate | None) -> str:
    return NOTHING if estimate is None else f"{_percent(estimate.mean)}\n{_interval(estimate.interval)}"


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return NOTHING
    low, high = difference.interval
    return f"{100 * difference.difference:+.1f}\n{100 * low:+.1f} to {100 * high:+.1f}"


def _place(position: PositionAccuracy | None) -> str:
    return NOTHING if position is None else f"{_percent(position.accuracy)}\nno. {position.position}"


def _p_value(p: float | None) -> str:
    if p is None:
        return NOTHING
    return f"{p:.4f}" if p >= 1e-4 else f"{p:.1e}"
