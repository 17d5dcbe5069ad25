"""A mask as a PNG picture, for a report or a paper."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from flexray.report.mask_picture import MaskPicture, segment_kind

FUTURE_COLOUR = "#ffffff"  # a key after the query: hidden in any causal model
HIDDEN_COLOUR = "#ececef"  # a key before the query, hidden by isolation
INK, FAINT_INK, BORDER = "#23272f", "#6b7280", "#ffffff"
MAX_LEGEND = 12


def mask_png(picture: MaskPicture, *, title: str) -> bytes:
    """Draw a mask, one cell a token (about 1500 x 1300 pixels).

    Args:
        title: what mask it is.
    """
    figure = Figure(figsize=(8.5, 8.5), dpi=150)  # without pyplot's global state
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    colours = picture.colours
    past = np.tri(len(picture.mask), dtype=bool)[..., None]
    unseen = np.where(past, to_rgb(HIDDEN_COLOUR), to_rgb(FUTURE_COLOUR))
    of_key = np.repeat(
        [to_rgb(colours[s.name]) for s in picture.segments], list(map(len, picture.segments)), 0
    )
    axes.imshow(np.where(picture.mask[..., None], of_key[None], unseen), interpolation="nearest")
    _draw_borders(axes, picture)
    _label_axes(axes, picture)
    named = {"context copies" if segment_kind(name) == "copy" else name: c for name, c in colours.items()}
    handles = [Patch(facecolor=colour, label=name) for name, colour in named.items()]
    if len(handles) > MAX_LEGEND:
        more = Patch(facecolor="none", label=f"… {len(handles) - MAX_LEGEND} more")
        handles = [*handles[: MAX_LEGEND - 1], more, handles[-1]]
    for colour, label in ((HIDDEN_COLOUR, "isolated"), (FUTURE_COLOUR, "future")):
        handles.append(Patch(facecolor=colour, edgecolor="#c9ccd3", label=label))
    axes.legend(
        handles=handles,
        title="colour: the key's segment",
        loc="upper left",
        bbox_to_anchor=(1.015, 1.012),
        alignment="left",
        frameon=False,
    )
    axes.set_title(f"Attention mask: {title}", fontsize=14, fontweight="bold", color=INK, loc="left", pad=28)
    axes.text(0, 1.018, picture.counts(), transform=axes.transAxes, color=FAINT_INK)
    # The axes have a fixed size; the picture is cut to them and their labels.
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.25)
    return file.getvalue()


def _draw_borders(axes: Axes, picture: MaskPicture) -> None:
    count, segments = len(picture.mask), picture.segments
    # lines between tokens, if these are few enough
    tokens = (np.arange(1, count) - 0.5).tolist() if count <= 64 else []
    borders, strength = [s.start - 0.5 for s in segments[1:]], 0.55 if len(segments) <= 16 else 0.25
    for places, colour, alpha in ((tokens, BORDER, 1.0), (borders, INK, strength)):
        for lines in (axes.hlines, axes.vlines):
            lines(places, -0.5, count - 0.5, color=colour, linewidth=0.8, alpha=alpha)


def _label_axes(axes: Axes, picture: MaskPicture) -> None:
    segments = picture.segments
    centres = [(s.start + s.stop - 1) / 2 for s in segments]
    size = 10 if len(segments) <= 16 else 8 if len(segments) <= 32 else 5
    axes.tick_params(length=0, labelsize=size, labelcolor=INK)
    axes.set_xticks(centres, [s.name for s in segments])
    for s, label in zip(segments, axes.get_xticklabels(), strict=True):
        if len(s.name) * 0.013 * len(picture.mask) > len(s):  # wider than its segment: upright
            label.set_rotation(90)
    spans = (np.unique(picture.positions[s.start : s.stop])[[0, -1]].tolist() for s in segments)
    names = [
        f"{s.name}  {'–'.join(map(str, dict.fromkeys(ends)))}"
        for s, ends in zip(segments, spans, strict=True)
    ]
    axes.set_yticks(centres, names)
    axes.set_xlabel("key", fontsize=11, color=INK)
    axes.set_ylabel("query (with position ids)", fontsize=11, color=INK)
