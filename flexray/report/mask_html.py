"""A mask as an HTML page: each pair can be asked who sees whom, and why."""

from __future__ import annotations

import numpy as np

from flexray.report.files import fill_page
from flexray.report.formatting import one_line
from flexray.report.mask_picture import MaskPicture, is_answer, is_context


def mask_page(picture: MaskPicture, *, title: str, question: str) -> str:
    """The page.

    Args:
        title: what mask it is.
        question: the row's id and question.
    """
    colours = picture.colours
    segments = [
        {
            "name": s.name,
            "kind": _kind(s.name),
            "colour": colours[s.name],
            "start": s.start,
            "stop": s.stop,
            "positions": picture.positions[s.start : s.stop].tolist(),
            "tokens": [one_line(label) for label in picture.labels[s.start : s.stop]],
        }
        for s in picture.segments
    ]
    return fill_page(
        "mask",
        data={"segments": segments, "rows": visible_spans(picture.mask)},
        title=title,
        question=question,
        counts=picture.counts(),
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
