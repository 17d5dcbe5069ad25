"""The plots of the page, drawn by matplotlib as SVG.

Each is a picture (a data URL) with its summary in words. Its text stays text, and its colours can be seen on
light and on dark pages.
"""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from flexray.console.terminal import printable
from flexray.evaluation import ScoreCounts
from flexray.report.formatting import fixed
from flexray.report.work import Shard

WIDTH, HEIGHT = 5.0, 1.9
"""Inches, at 72 dots each: readable on a screen of 400 pixels."""
BARS = 40
INK, BAR = "#7f8790", "#4a90d9"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "flexray",
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
} | dict.fromkeys(("axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)


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
        values: value -> how many have it.
        unit, things: what the values count, and what has them, in words.

    Values above the 99th percentile share the last bar, so that the other bars stay wide enough.
    """
    if not values:
        return None
    xs, counts = (np.array(column, dtype=float) for column in zip(*sorted(values.items()), strict=True))
    median, p95, p99 = xs[np.searchsorted(counts.cumsum(), np.array([0.5, 0.95, 0.99]) * counts.sum())]

    def draw(axes: Axes) -> None:
        shown = xs.clip(max=p99)
        width = max(1.0, np.ceil((shown[-1] - xs[0]) / BARS))
        whole = list(np.arange(xs[0] - 0.5, shown[-1] + width, width))  # as many whole numbers in each bar
        axes.hist(shown, bins=whole if (xs == xs.round()).all() else BARS, weights=counts, color=BAR)
        axes.set_xlabel(f"{unit}, the last bar: {p99:,.4g} or more" if p99 < xs[-1] else unit)
        axes.set_ylabel(things)
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))

    summary = f"median {median:,.4g} · 95th percentile {p95:,.4g} · highest {xs[-1]:,.4g}"
    return _plot(title, summary, draw)


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

    def draw(axes: Axes) -> None:
        axes.stairs(rates, (edges - start) / 60, fill=True, color=BAR)
        axes.set_xlabel("minutes since the start")

    return _plot("Rows a second over time", f"highest {fixed(rates.max())} rows/s", draw)


def accuracies(found: Mapping[str, ScoreCounts]) -> Plot | None:
    """The accuracy of each method, a dot on its interval; None: nothing is scored."""
    scored = [(name, n.accuracy, n.interval) for name, n in found.items()]
    lines = [(name, value, ends) for name, value, ends in scored if value is not None and ends]
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        for place, (_, value, (low, high)) in enumerate(lines):
            axes.plot([low, high], [place, place], color=BAR, linewidth=5, alpha=0.4)
            axes.plot(value, place, "o", color=BAR)
        axes.set_yticks(range(len(lines)), [printable(name)[:40] for name, _, _ in lines])
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.xaxis.set_major_locator(MaxNLocator(5))

    return _plot("Accuracy with its 95% interval", "", draw, height=0.6 + 0.25 * len(lines))


def _plot(title: str, summary: str, draw: Callable[[Axes], None], height: float = HEIGHT) -> Plot:
    file = io.StringIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the browser has other fonts
        # without pyplot, which would keep global state and choose a backend for the process
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    url = f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue().encode()).decode()}"
    return Plot(title, summary, url)
