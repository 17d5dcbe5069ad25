"""A mask as a PNG picture, for a report or a paper."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from flexray.report.mask_picture import MaskPicture, colour_of

HIDDEN_COLOUR = "#ececef"  # a key before the query, hidden by isolation


def mask_png(picture: MaskPicture, *, title: str) -> bytes:
    """Draw a mask, one cell a token (about 1300 x 1300 pixels).

    Args:
        title: what mask it is.
    """
    segments, length = picture.segments, len(picture.mask)
    colours = np.repeat([to_rgb(colour_of(s.name)) for s in segments], list(map(len, segments)), axis=0)
    unseen = np.where(np.tri(length, dtype=bool)[..., None], to_rgb(HIDDEN_COLOUR), 1.0)
    figure = Figure(figsize=(8.5, 8.5), dpi=150, layout="constrained")  # without pyplot's global state
    axes = figure.add_subplot()
    axes.imshow(np.where(picture.mask[..., None], colours[None], unseen), interpolation="nearest")
    borders = [s.start - 0.5 for s in segments[1:]]
    for lines in (axes.hlines, axes.vlines):
        lines(borders, -0.5, length - 0.5, color="black", linewidth=0.8, alpha=0.4)
    centres = [(s.start + s.stop - 1) / 2 for s in segments]
    size = 10 if len(segments) <= 16 else 8 if len(segments) <= 32 else 5
    axes.set_xticks(centres, [s.name for s in segments], rotation=90, fontsize=size)
    ends = [picture.positions[[s.start, s.stop - 1]] for s in segments]
    names = [f"{s.name}  {first}–{last}" for s, (first, last) in zip(segments, ends, strict=True)]
    axes.set_yticks(centres, names, fontsize=size)
    axes.set_xlabel("key; grey: isolated, white: in the future")
    axes.set_ylabel("query (with position ids)")
    axes.set_title(f"Attention mask: {title}\n{picture.counts()}", loc="left")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
