"""An explanation as an HTML page: all steps, and attention by layer for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flexray.report.explain import Explanation
from flexray.report.explain.explanation import Answer, Branch, Segment, Step
from flexray.report.explanation_facts import facts_of, own_segments, percent, positions_of
from flexray.report.html import fill_page
from flexray.report.regions import one_line, region_colours

DIGITS = 4  # of a share in the page's data


def explanation_page(explanation: Explanation) -> str:
    """The page."""
    colours = region_colours(explanation.parts)
    answers = [
        {
            "title": _title(explanation, number, answer),
            "steps": [_step(step, answer, t, explanation.parts) for t, step in enumerate(answer.steps)],
            "own": [
                _segment(segment, colours) | {"suffix": suffix}
                for suffix, segments in own_segments(explanation, number - 1)
                for segment in segments
            ],
        }
        for number, answer in enumerate(explanation.answers, start=1)
    ]
    return fill_page(
        "explanation",
        {
            "parts": explanation.parts,
            "colours": [colours[part] for part in explanation.parts],
            "answers": [_layers(answer) for answer in explanation.answers],
        },
        row_id=explanation.row_id,
        version=explanation.flexray,
        fusion=explanation.fusion,
        facts=facts_of(explanation),
        legend=[{"name": name, "colour": colour} for name, colour in colours.items()],
        segments=[_segment(segment, colours) for segment in explanation.segments],
        answers=answers,
    )


def _title(explanation: Explanation, number: int, answer: Answer) -> str:
    if len(explanation.answers) == 1:
        return "Answer"
    chosen = ", the row's prediction" if number == explanation.chosen + 1 else ""
    alone = f", of P{answer.branches[0].paraphrase} alone" if answer.branches else ""
    drawn = f", drawn (temperature {answer.draw.temperature:g})" if answer.draw else ""
    return f"Answer {number}{alone}{drawn}{chosen}: {one_line(answer.text)}"


def _labels(answer: Answer) -> list[str]:
    """What tells branches apart that choose together; "" for a single one."""
    if len(answer.branches) == 1:
        return [""]
    return [f"P{branch.paraphrase}, weight {branch.weight:.2g}" for branch in answer.branches]


def _step(step: Step, answer: Answer, t: int, parts: Sequence[str]) -> dict[str, Any]:
    return {
        "text": one_line(step.text),
        "id": step.id,
        "probability": percent(step.probability),
        "rank": step.rank,
        "gap": f"{step.gap:.2g}",
        "agrees": step.rank == 1 or answer.draw is not None,
        "top": [
            {
                "text": one_line(c.text),
                "width": f"{100 * min(1.0, c.probability):.2f}",
                "probability": percent(c.probability),
                "chosen": c.id == step.id,
            }
            for c in step.top
        ],
        "shares": [
            {"label": label, "bars": _bars(branch, t, parts)}
            for branch, label in zip(answer.branches, _labels(answer), strict=True)
        ],
    }


def _bars(branch: Branch, t: int, parts: Sequence[str]) -> list[dict[str, str]]:
    """A stacked bar, in percent of its width."""
    colours, bars, start = region_colours(parts), [], 0.0
    for part, share in zip(parts, branch.mean_attention[t].tolist(), strict=True):
        if share:
            bar = {"name": part, "x": f"{100 * start:.3f}", "width": f"{100 * share:.3f}"}
            bars.append(bar | {"colour": colours[part], "share": percent(share)})
        start += share
    return bars


def _segment(segment: Segment, colours: dict[str, str]) -> dict[str, Any]:
    return {
        "name": segment.name,
        "colour": colours[segment.name],
        "count": len(segment.tokens),
        "positions": positions_of(segment),
        "tokens": [
            {"text": one_line(token.text), "id": token.id, "position": token.position}
            for token in segment.tokens
        ],
    }


def _layers(answer: Answer) -> dict[str, Any]:
    """For the script: the shares by layer of each branch, less the parts that get nothing anywhere."""
    branches = []
    for branch, label in zip(answer.branches, _labels(answer), strict=True):
        seen = np.flatnonzero(branch.attention.any((0, 1)))
        shares = np.round(branch.attention[:, :, seen].astype(float), DIGITS)
        branches.append({"label": label, "parts": seen.tolist(), "shares": shares.tolist()})
    return {"steps": [one_line(step.text) for step in answer.steps], "branches": branches}
