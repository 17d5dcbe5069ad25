"""An explanation on the console, and as an HTML page that has the attention by layer, too."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from flexray.console.terminal import printable
from flexray.report.explain import Explanation
from flexray.report.explain.explanation import ExplainedAnswer
from flexray.report.explanation_parts import answer_title, facts, label, note, segments_table, steps_table
from flexray.report.formatting import one_line
from flexray.report.mask_picture import segment_colours
from flexray.report.output_files import fill_page
from flexray.report.tables import print_facts, print_table

WIDTH = 100
MAX_ANSWERS = 10
"""That the console has."""
DIGITS = 4  # of a share in the page's data


def print_explanation(explanation: Explanation, console: Console | None = None) -> None:
    """Print it, at most 100 columns wide: the summary, the segments, and for each answer its steps."""
    width = min(WIDTH, Console().width) if sys.stdout.isatty() else WIDTH
    console = console or Console(width=width)
    console.print(Text(printable(explanation.row_id), "bold"))
    print_facts(facts(explanation), console)
    console.print()
    print_table(segments_table(explanation), console)
    for index, answer in enumerate(explanation.answers[:MAX_ANSWERS]):
        if answer.steps:
            console.print(Text(f"\n{answer_title(explanation, index)}", "bold"))
            print_table(steps_table(answer, explanation.segment_names), console)
    if rest := explanation.answers[MAX_ANSWERS:]:
        console.print(Text(f"... and {len(rest)} more answers; --json and --html have them all", "dim"))
    console.print(Text(f"\n{note(explanation)}", "dim"))


def explanation_page(explanation: Explanation) -> str:
    """The page."""
    names = explanation.segment_names
    colours = segment_colours(names)
    return fill_page(
        "explanation",
        {
            "segment_names": names,
            "colours": [colours[name] for name in names],
            "answers": [_layers(answer) for answer in explanation.answers],
        },
        explanation=explanation,
        facts=facts(explanation),
        segments=segments_table(explanation),
        note=note(explanation),
        answers=[
            (answer_title(explanation, index), steps_table(answer, names))
            for index, answer in enumerate(explanation.answers)
        ],
    )


def _layers(answer: ExplainedAnswer) -> dict[str, Any]:
    """For the script: the shares by layer of each sequence, without segments that get no attention at all."""
    sequences = []
    for sequence in answer.sequences:
        seen = np.flatnonzero(sequence.attention_by_layer.any((0, 1)))
        shares = sequence.attention_by_layer[:, :, seen].astype(float).round(DIGITS)
        name = label(sequence, answer)
        sequences.append({"label": name, "segments": seen.tolist(), "shares": shares.tolist()})
    return {"steps": [one_line(step.text) for step in answer.steps], "sequences": sequences}
