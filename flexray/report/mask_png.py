"""A mask as a PNG picture, for a report or a paper."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
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
    # A figure of its own canvas: pyplot would keep global state and choose a backend for the process.
    figure = Figure(figsize=(8.5, 8.5), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    axes.imshow(_paint(picture), interpolation="nearest", aspect="equal")
    _draw_borders(axes, picture)
    _label_axes(axes, picture)
    _draw_legend(axes, picture)
    axes.set_title(f"Attention mask: {title}", fontsize=14, fontweight="bold", color=INK, loc="left", pad=28)
    axes.text(0, 1.018, picture.counts(), transform=axes.transAxes, fontsize=10, color=FAINT_INK)
    # The axes have a fixed size; the picture is cut to them and their labels.
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.25)
    return file.getvalue()


def _paint(picture: MaskPicture) -> np.ndarray:
    """float [L, L, 3]: the key's colour where it is seen."""
    colours = picture.colours
    rgb = [to_rgb(colours[s.name]) for s in picture.segments]
    key_rgb = np.repeat(rgb, [len(s) for s in picture.segments], axis=0)
    past = np.tri(len(picture.mask), dtype=bool)[..., None]
    unseen = np.where(past, to_rgb(HIDDEN_COLOUR), to_rgb(FUTURE_COLOUR))
    return np.where(picture.mask[..., None], key_rgb[None, :, :], unseen)


def _draw_borders(axes: Axes, picture: MaskPicture) -> None:
    count, segments = len(picture.mask), picture.segments
    borders = [s.start - 0.5 for s in segments[1:]]
    strength = 0.55 if len(segments) <= 16 else 0.25
    axes.tick_params(length=0)
    for lines in (axes.hlines, axes.vlines):
        if count <= 64:  # few enough that a line between tokens is visible
            # Not a minor grid: matplotlib drops its lines where a label's tick falls on them.
            lines(np.arange(1, count) - 0.5, -0.5, count - 0.5, color=BORDER, linewidth=0.8)
        lines(borders, -0.5, count - 0.5, color=INK, linewidth=0.8, alpha=strength)
    for spine in axes.spines.values():
        spine.set_color(INK)
        spine.set_linewidth(0.8)


def _label_axes(axes: Axes, picture: MaskPicture) -> None:
    segments = picture.segments
    centres = [(s.start + s.stop - 1) / 2 for s in segments]
    size = 10 if len(segments) <= 16 else 8 if len(segments) <= 32 else 5
    axes.set_xticks(centres, [s.name for s in segments], fontsize=size, color=INK)
    for s, label in zip(segments, axes.get_xticklabels(), strict=True):
        if len(s.name) * 0.013 * len(picture.mask) > len(s):  # wider than its segment: upright
            label.set_rotation(90)
    names = [f"{s.name}  {_span(picture.positions[s.start : s.stop])}" for s in segments]
    axes.set_yticks(centres, names, fontsize=size, color=INK)
    axes.set_xlabel("key", fontsize=11, color=INK)
    axes.set_ylabel("query (with position ids)", fontsize=11, color=INK)


def _span(ids: np.ndarray) -> str:
    low, high = int(ids.min()), int(ids.max())
    return str(low) if low == high else f"{low}–{high}"


def _draw_legend(axes: Axes, picture: MaskPicture) -> None:
    named: dict[str, str] = {}
    for name, colour in picture.colours.items():
        named.setdefault("context copies" if segment_kind(name) == "copy" else name, colour)
    handles = [Patch(facecolor=colour, label=name) for name, colour in named.items()]
    if len(handles) > MAX_LEGEND:
        rest = len(handles) - MAX_LEGEND
        handles = [
            *handles[: MAX_LEGEND - 1],
            Patch(facecolor="none", label=f"… {rest} more"),
            handles[-1],
        ]
    handles += [
        Patch(facecolor=HIDDEN_COLOUR, edgecolor="#c9ccd3", label="isolated"),
        Patch(facecolor=FUTURE_COLOUR, edgecolor="#c9ccd3", label="future"),
    ]
    legend = axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.015, 1.012),
        title="colour: the key's segment",
        alignment="left",
        frameon=False,
        fontsize=10,
    )
    legend.get_title().set_color(INK)
