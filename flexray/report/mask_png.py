"""A sample's attention mask as a PNG picture, for a report or a paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from flexray.report.regions import Run, check_mask, count_pairs, find_runs, region_colours

FUTURE_COLOUR = "#ffffff"  # a key after the query: hidden in any causal model
HIDDEN_COLOUR = "#ececef"  # a key before the query, hidden by isolation
INK, FAINT_INK, BORDER = "#23272f", "#6b7280", "#ffffff"
MAX_LEGEND = 12


def save_mask_png(
    mask: np.ndarray,
    segments: Sequence[str],
    path: str | Path,
    *,
    title: str,
    position_ids: np.ndarray | None = None,
) -> None:
    """Draw a mask, one cell a token, and write it to `path` (about 1500 x 1300 pixels).

    Args:
        mask: bool [L, L], rows are queries, columns keys.
        segments: [L], names such as "context", "P1", "answer".
        title: what mask it is.
        position_ids: int [L], the RoPE positions; each row label then gives its segment's range.

    Raises:
        ValueError: the mask is not bool [L, L], or segments or position_ids are not L.
        OSError: the file cannot be written.
    """
    check_mask(mask, segments)
    if position_ids is not None and len(position_ids) != len(mask):
        raise ValueError(f"{len(position_ids)} position ids for a mask of {len(mask)} positions")
    runs = find_runs(segments)

    # A figure of its own canvas: pyplot would keep global state and choose a backend for the process.
    figure = Figure(figsize=(8.5, 8.5), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    axes.imshow(_paint(mask, segments), interpolation="nearest", aspect="equal")
    _draw_borders(axes, runs, len(mask))
    _label_axes(axes, runs, position_ids)
    _draw_legend(axes, segments)
    axes.set_title(f"Attention mask: {title}", fontsize=14, fontweight="bold", color=INK, loc="left", pad=28)
    axes.text(0, 1.018, count_pairs(mask), transform=axes.transAxes, fontsize=10, color=FAINT_INK)
    # Axes of a fixed size, and a picture cut to whatever stands around them.
    figure.savefig(path, format="png", bbox_inches="tight", pad_inches=0.25)


def _paint(mask: np.ndarray, segments: Sequence[str]) -> np.ndarray:
    """float [L, L, 3]: the key's colour where it is seen."""
    colours = region_colours(segments)
    key_rgb = np.array([to_rgb(colours[name]) for name in segments])
    past = np.tri(len(mask), dtype=bool)[..., None]
    unseen = np.where(past, to_rgb(HIDDEN_COLOUR), to_rgb(FUTURE_COLOUR))
    return np.where(mask[..., None], key_rgb[None, :, :], unseen)


def _draw_borders(axes: Axes, runs: list[Run], count: int) -> None:
    if count <= 64:  # few enough that each token can be told from its neighbour
        # Not a minor grid: matplotlib drops its lines where a label's tick falls on them.
        edges = np.arange(1, count) - 0.5
        axes.hlines(edges, -0.5, count - 0.5, color=BORDER, linewidth=0.8)
        axes.vlines(edges, -0.5, count - 0.5, color=BORDER, linewidth=0.8)
    axes.tick_params(length=0)
    borders = [run.start - 0.5 for run in runs[1:]]
    strength = 0.55 if len(runs) <= 16 else 0.25
    axes.hlines(borders, -0.5, count - 0.5, color=INK, linewidth=0.8, alpha=strength)
    axes.vlines(borders, -0.5, count - 0.5, color=INK, linewidth=0.8, alpha=strength)
    for spine in axes.spines.values():
        spine.set_color(INK)
        spine.set_linewidth(0.8)


def _label_axes(axes: Axes, runs: list[Run], position_ids: np.ndarray | None) -> None:
    centres = [(run.start + run.stop - 1) / 2 for run in runs]
    names = [run.name for run in runs]
    size = 10 if len(runs) <= 16 else 8 if len(runs) <= 32 else 5
    total = runs[-1].stop
    axes.set_xticks(centres, names, fontsize=size, color=INK)
    for run, label in zip(runs, axes.get_xticklabels(), strict=True):
        if len(run.name) * 0.013 * total > run.stop - run.start:  # wider than its segment: upright
            label.set_rotation(90)
    if position_ids is not None:
        names = [f"{run.name}  {_span(position_ids[run.start : run.stop])}" for run in runs]
    axes.set_yticks(centres, names, fontsize=size, color=INK)
    axes.set_xlabel("key", fontsize=11, color=INK)
    axes.set_ylabel("query" if position_ids is None else "query (with position ids)", fontsize=11, color=INK)


def _span(ids: np.ndarray) -> str:
    low, high = int(ids.min()), int(ids.max())
    return str(low) if low == high else f"{low}–{high}"


def _draw_legend(axes: Axes, segments: Sequence[str]) -> None:
    regions: dict[str, str] = {}
    for name, colour in region_colours(segments).items():
        regions.setdefault("context copies" if name[0] == "C" and name[1:].isdigit() else name, colour)
    handles = [Patch(facecolor=colour, label=name) for name, colour in regions.items()]
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
