"""Plots as plain numbers: positions in percent of the drawing, from its left and its top.

The template draws them as SVG, which takes colours and fonts from the page and stretches to any width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flexray.console.terminal import duration
from flexray.report.formatting import compact, count, rate, share
from flexray.report.work import Shard

_MAX_BARS = 40
_MIN_BARS = 8  # else one bar would fill the plot
_TIME_BARS = 60
_DURATIONS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Bar:
    """A vertical bar from the bottom; in percent of the drawing."""

    left: float
    width: float
    height: float
    text: str  # what a pointer shows


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """Bars over an axis."""

    bars: tuple[Bar, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    summary: str  # in words


@dataclass(frozen=True, slots=True)
class Axis:
    """A line of numbers from `low` to `high`."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """The position of a value, in percent."""
        return 100 * (value - self.low) / (self.high - self.low)

    def ticks(self, parts: int, text: Callable[[float], str] = compact) -> tuple[Tick, ...]:
        """Marks at round numbers, which cut the axis into at most `parts` parts."""
        return _ticks(self, nice_step(self.high - self.low, parts), text)


def histogram(
    values: Mapping[int, int] | Mapping[float, int], *, unit: str, things: str = "rows", whole: bool = True
) -> Plot | None:
    """How often each value occurs; None: there are no values.

    Args:
        values: value -> how many have it. Values are not negative.
        unit, things: what the values count, and what has them, in words.
        whole: the values are integers.

    A few values far above the others share one bar, "or more", so that the other bars stay wide enough.
    """
    if not values:
        return None
    pairs = sorted(values.items())
    xs, ns = np.array([x for x, _ in pairs], dtype=float), np.array([n for _, n in pairs])
    median, p95, p99 = (_quantile(xs, ns, part) for part in (0.5, 0.95, 0.99))
    cut = p99 if xs[-1] - xs[0] > 2 * (p99 - xs[0]) > 0 else xs[-1]
    step = nice_step(cut - xs[0], _MAX_BARS)
    if whole:
        step = max(1.0, step)
    first, last = math.floor(xs[0] / step), math.floor(cut / step)
    spare = max(0, _MIN_BARS - 1 - (last - first))
    first, last = first - min(first, spare // 2), last + spare - min(first, spare // 2)
    places = np.minimum(np.floor(xs / step).astype(int), last + 1) - first
    heights = np.bincount(places, weights=ns, minlength=last - first + 1)
    axis = Axis(first * step, (first + len(heights)) * step)

    def text(place: int) -> str:
        low = (first + place) * step
        high = low + step - (1 if whole else 0)
        if first + place > last:
            values = f"{_number(low)} {unit} or more"
        else:
            values = f"{_number(low)} {unit}" if low == high else f"{_number(low)} to {_number(high)} {unit}"
        return f"{values}: {count(heights[place])} {things} ({share(heights[place], ns.sum())})"

    middle = 50 / len(heights) if whole and step == 1 else 0.0  # a bar of one value has it in its middle
    return _plot(
        heights,
        text,
        x_ticks=(Tick(tick.at + middle, tick.text) for tick in axis.ticks(5) if tick.at + middle <= 100),
        summary=f"median {_number(median)} · 95th percentile {_number(p95)} · highest {_number(xs[-1])}",
        whole=True,
    )


def throughput(shards: Sequence[Shard], start: float, end: float) -> Plot | None:
    """Rows a second from `start` to `end` (seconds since 1970); None: nothing was timed.

    When a row was answered within its shard is not recorded, so rows are spread evenly over the shard's time.
    """
    if not shards:
        return None
    end = max(end, start + 1)
    edges = np.linspace(start, end, min(_TIME_BARS, math.ceil(end - start)) + 1)
    answered = np.zeros(len(edges))
    for shard in shards:
        begun, done = shard.span
        length = max(done - begun, 1e-3)
        answered += shard.work.rows * np.clip((edges - done + length) / length, 0, 1)
    rates = np.diff(answered) / np.diff(edges)
    passed = [duration(edge - start) for edge in edges]
    axis = Axis(0, end - start)
    step = next((d for d in _DURATIONS if axis.high / d <= 6), 86400 * nice_step(axis.high / 86400, 6))
    return _plot(
        rates,
        lambda place: f"{passed[place]} to {passed[place + 1]}: {rate(rates[place])} rows/s",
        x_ticks=_ticks(axis, step, _elapsed),
        summary=f"highest {rate(rates.max())} rows/s",
    )


def share_axis(values: Sequence[float]) -> Axis:
    """An axis of shares in [0, 1] that shows all of these, from and to tenths."""
    if not values:
        return Axis(0, 1)
    low, high = math.floor(10 * min(values)) / 10, math.ceil(10 * max(values)) / 10
    return Axis(low, high) if high > low else Axis(max(0.0, low - 0.1), min(1.0, low + 0.1))


def difference_axis(values: Sequence[float]) -> Axis:
    """An axis with 0 in its middle that shows all of these differences."""
    reach = max((abs(value) for value in values), default=0.0)
    step = nice_step(reach, 4)
    high = step * math.ceil(reach / step - 1e-9) if reach else 0.01
    return Axis(-high, high)


def nice_step(span: float, parts: int) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that cuts `span` into at most `parts` steps.

    >>> nice_step(97, 5)
    20.0
    """
    if span <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / parts))
    return next(
        (times * power for times in (1, 2, 5) if span / (times * power) <= parts * (1 + 1e-9)), 10 * power
    )


def _plot(
    heights: np.ndarray,
    text: Callable[[int], str],
    *,
    x_ticks: Iterable[Tick],
    summary: str,
    whole: bool = False,
) -> Plot:
    """Bars side by side, under an axis from 0 to a round number that is not below the highest.

    Args:
        text: what a pointer shows, by the bar's place.
        whole: the heights are integers.
    """
    highest, width = heights.max(), 100 / len(heights)
    step = nice_step(highest, 3)
    step = max(1.0, step) if whole else step
    axis = Axis(0, step * max(1, math.ceil(highest / step - 1e-9)))
    return Plot(
        bars=tuple(
            Bar(place * width, width, axis.at(height), text(place))
            for place, height in enumerate(heights)
            if height > 0
        ),
        x_ticks=tuple(x_ticks),
        y_ticks=tuple(Tick(100 - tick.at, tick.text) for tick in _ticks(axis, step, compact)),
        summary=summary,
    )


def _ticks(axis: Axis, step: float, text: Callable[[float], str]) -> tuple[Tick, ...]:
    first, last = math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9)
    return tuple(Tick(axis.at(place * step), text(place * step)) for place in range(first, last + 1))


def _quantile(xs: np.ndarray, ns: np.ndarray, part: float) -> float:
    """The smallest value that is not below `part` of all; `xs` is sorted, each is there `ns` times."""
    reached = np.cumsum(ns)
    return float(xs[np.searchsorted(reached, part * reached[-1])])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == round(value) else f"{value:.3g}"


def _elapsed(seconds: float) -> str:
    """Marks of a time axis, all round.

    >>> [_elapsed(s) for s in (0, 30, 90, 5400, 7200, 86400)]
    ['0', '30 s', '1.5 min', '1.5 h', '2 h', '1 d']
    """
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= length:
            return f"{seconds / length:g} {unit}"
    return "0"
