"""A sample's attention mask as an HTML page: each pair can be asked who sees whom, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flexray.masks.picture import MaskPicture
from flexray.report.html import fill_page
from flexray.report.regions import (
    check_mask,
    count_pairs,
    find_runs,
    is_answer,
    is_context,
    one_line,
    region_colours,
)


def mask_page(picture: MaskPicture, labels: Sequence[str], *, title: str, question: str) -> str:
    """The page.

    Args:
        labels: [L], the tokens' texts. They may hold anything.
        title: what mask it is.
        question: the row's id and question.

    Raises:
        ValueError: the mask is not bool [L, L], or labels or segments are not L.
    """
    check_mask(picture.mask, picture.segments)
    if len(labels) != len(picture.mask):
        raise ValueError(f"{len(labels)} labels for a mask of {len(picture.mask)} positions")
    colours = region_colours(picture.segments)
    texts = [one_line(label) for label in labels]
    segments: list[dict[str, Any]] = [
        {
            "name": run.name,
            "kind": _kind(run.name),
            "colour": colours[run.name],
            "start": run.start,
            "stop": run.stop,
            "positions": picture.positions[run.start : run.stop].tolist(),
            "tokens": texts[run.start : run.stop],
        }
        for run in find_runs(picture.segments)
    ]
    return fill_page(
        "mask",
        {"segments": segments, "rows": visible_spans(picture.mask)},
        title=title,
        question=question,
        counts=count_pairs(picture.mask),
        segments=segments,
    )


def visible_spans(mask: np.ndarray) -> list[list[int]]:
    """Of each query the keys that it sees, as [start, stop, start, stop, ..]: a handful of numbers where a
    row of the mask has thousands.

    >>> visible_spans(np.array([[True, False, False], [True, False, True]]))
    [[0, 1], [0, 1, 2, 3]]
    """
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1) != 0
    return [np.flatnonzero(row).tolist() for row in edges]


def _kind(name: str) -> str:
    """For the reasons that the page gives."""
    if is_context(name):
        return "context" if name == "context" else "copy"
    return "answer" if is_answer(name) else "paraphrase"
