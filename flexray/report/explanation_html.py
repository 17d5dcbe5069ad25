"""An explanation as an HTML page: all steps, each with its attention by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flexray.report.explain import Explanation
from flexray.report.explain.explanation import ExplainedAnswer, SequenceAttention
from flexray.report.explanation_lines import answer_title, own_segments, positions_of, summary_lines
from flexray.report.formatting import one_line, percentage
from flexray.report.mask_picture import segment_colours
from flexray.report.output_files import fill_page

DIGITS = 4  # of a share in the page's data


def explanation_page(explanation: Explanation) -> str:
    """The page."""
    names, indices = explanation.segment_names, range(len(explanation.answers))
    colours = segment_colours(names)
    return fill_page(
        "explanation",
        filters={"one_line": one_line, "percentage": percentage, "positions": positions_of},
        data={
            "segment_names": names,
            "colours": [colours[name] for name in names],
            "answers": [_layers(answer) for answer in explanation.answers],
        },
        explanation=explanation,
        lines=summary_lines(explanation),
        colours=colours,
        titles=[answer_title(explanation, index) or "Answer" for index in indices],
        own=[pair for index in indices for pair in own_segments(explanation, index)],
        label=_label,
        shares=lambda sequence, step: _shares(sequence.attention[step], names),
    )


def _shares(attention: np.ndarray, names: Sequence[str]) -> list[tuple[str, float, float]]:
    """Name, left end and share of each segment that gets attention, to be stacked in a bar."""
    ends = attention.cumsum()
    bars = zip(names, (ends - attention).tolist(), attention.tolist(), strict=True)
    return [bar for bar in bars if bar[2]]


def _label(answer: ExplainedAnswer, sequence: SequenceAttention) -> str:
    """Names a sequence among those that it is fused with; "" if it is the only one."""
    several = len(answer.sequences) > 1
    return f"P{sequence.paraphrase}, weight {sequence.weight:.2g}" if several else ""


def _layers(answer: ExplainedAnswer) -> dict[str, Any]:
    """For the script: the shares by layer of each sequence, without segments that get no attention at all."""
    sequences = []
    for sequence in answer.sequences:
        seen = np.flatnonzero(sequence.attention_by_layer.any((0, 1)))
        shares = sequence.attention_by_layer[:, :, seen].astype(float).round(DIGITS)
        label = _label(answer, sequence)
        sequences.append({"label": label, "segments": seen.tolist(), "shares": shares.tolist()})
    return {"steps": [one_line(step.text) for step in answer.steps], "sequences": sequences}
