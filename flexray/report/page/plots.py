"""The plots of the page, drawn by matplotlib as SVG.

Each is a picture (a data URL) with its summary in words. Its text stays text, and its colours follow the
reader's, by a style sheet in the picture.
"""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from flexray.console.terminal import printable
from flexray.report.formatting import compact, cut, rate
from flexray.report.work import Shard

WIDTH, HEIGHT = 5.0, 1.9
"""Inches, at 72 dots each: readable on a screen of 400 pixels."""
BARS = 40
COLOURS = {
    "#111111": ("#59636e", "#98a3ae"),
    "#222222": ("#e1e5ea", "#2b323a"),
    "#333333": ("#2563a8", "#6fb1f3"),
}
"""What stands for a colour while it is drawn, by day and by night."""
INK, LINE, BAR = COLOURS
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "flexray",
    "text.parse_math": False,
    "font.family": ["sans-serif"],
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "ytick.left": False,
    "grid.color": LINE,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture."""

    title: str
    summary: str  # in words
    url: str


def histogram(
    title: str, values: Mapping[int, int] | Mapping[float, int], unit: str, things: str
) -> Plot | None:
    """How often each value occurs; None: there are no values.

    Args:
        values: value -> how many have it. Values are not negative.
        unit, things: what the values count, and what has them, in words.

    Values above the 99th percentile share the last bar, so that the other bars stay wide enough.
    """
    if not values:
        return None
    xs, counts = (np.array(column, dtype=float) for column in zip(*sorted(values.items()), strict=True))
    median, p95, p99 = xs[np.searchsorted(counts.cumsum(), np.array([0.5, 0.95, 0.99]) * counts.sum())]
    last = p99 if p99 > xs[0] and xs[-1] - xs[0] > 2 * (p99 - xs[0]) else xs[-1]
    whole = (xs == xs.round()).all()
    width = max(1.0, math.ceil((last - xs[0]) / BARS)) if whole else (last - xs[0]) / BARS or 1.0
    bars = max(8, math.floor((last - xs[0]) / width) + 1)
    edges = xs[0] + width * (np.arange(bars + 1) - (0.5 if whole else 0))
    heights, _ = np.histogram(xs.clip(max=edges[-1] - width / 2), edges, weights=counts)
    figure, axes = _figure()
    axes.stairs(heights, edges, fill=True, color=BAR)
    axes.set_xlabel(unit + (f", the last bar: {last:,.4g} or more" if last < xs[-1] else ""))
    axes.set_ylabel(things)
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    summary = f"median {median:,.4g} · 95th percentile {p95:,.4g} · highest {xs[-1]:,.4g}"
    return _plot(figure, title, summary)


def time_line(shards: Sequence[Shard], start: float, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Edges [N + 1] of N parts of the time from `start` to `end` (seconds since 1970); rows a second, [N].

    When a row was answered within its shard is not recorded, so rows are spread evenly over the shard's time.
    """
    end = max(end, start + 1)
    edges = np.linspace(start, end, min(60, math.ceil(end - start)) + 1)
    answered = np.zeros(len(edges))
    for shard in shards:
        begun, done = shard.span
        length = max(done - begun, 1e-3)
        answered += shard.work.rows * np.clip((edges - done + length) / length, 0, 1)
    return edges, np.diff(answered) / np.diff(edges)


def throughput(shards: Sequence[Shard], start: float, end: float) -> Plot | None:
    """Rows a second over time (see `time_line`); None: nothing was timed."""
    if not shards:
        return None
    edges, rates = time_line(shards, start, end)
    units = (("days", 86400), ("hours", 3600), ("minutes", 60))
    unit, size = next((u for u in units if edges[-1] - start > 2 * u[1]), ("seconds", 1))
    figure, axes = _figure()
    axes.stairs(rates, (edges - start) / size, fill=True, color=BAR)
    axes.set_xlabel(f"{unit} since the start")
    return _plot(figure, "Rows a second over time", f"highest {rate(rates.max())} rows/s")


def intervals(title: str, found: Iterable[tuple[str, float, tuple[float, float]]]) -> Plot | None:
    """Shares in [0, 1] (name, value, its interval), each a dot on its interval; None: there are none."""
    lines = list(found)
    if not lines:
        return None
    figure, axes = _figure(0.5 + 0.4 * len(lines), "x")
    across = axes.get_yaxis_transform()
    for place, (name, value, (low, high)) in enumerate(lines):
        axes.plot([low, high], [-place, -place], color=BAR, linewidth=6, alpha=0.35, solid_capstyle="round")
        axes.plot(value, -place, "o", color=BAR)
        label = cut(printable(name), 60)
        axes.text(0, 0.17 - place, label, color=INK, va="bottom", parse_math=False, transform=across)
    axes.set_ylim(-len(lines) + 0.6, 0.7)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return _plot(figure, title, "")


def _figure(height: float = HEIGHT, grid: Literal["x", "y"] = "y") -> tuple[Figure, Axes]:
    # without pyplot, which would keep global state and choose a backend for the process
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        left = 0.14 if grid == "y" else 0.06
        axes = figure.add_axes((left, 0.42 / height, 0.96 - left, 1 - 0.5 / height))
        axes.grid(axis=grid)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))
        axes.yaxis.set_major_locator(MaxNLocator(3))
    return figure, axes


def _plot(figure: Figure, title: str, summary: str) -> Plot:
    file = io.StringIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the browser has other fonts
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    style = "<style>:root{color-scheme:light dark}text{font-family:system-ui,sans-serif!important}</style>"
    svg = file.getvalue().replace("<defs>", style + "<defs>", 1)
    for colour, (day, night) in COLOURS.items():
        svg = svg.replace(colour, f"light-dark({day}, {night})")
    return Plot(title, summary, f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}")
