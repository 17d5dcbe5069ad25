"""Seconds on the wall, with the device's queue empty at both ends."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

REPEATS = 3


def synchronize() -> None:
    """Wait until the device has nothing left to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    synchronize()
    start = time.perf_counter()
    function()
    synchronize()
    return time.perf_counter() - start


def repeated(function: Callable[[], object], *, at_most: float, repeats: int = REPEATS) -> list[float]:
    """Seconds of each of `repeats` calls; fewer, but at least one, if they take more than `at_most`."""
    taken: list[float] = []
    while len(taken) < repeats and sum(taken) < at_most:
        taken.append(seconds(function))
    return taken


def median_seconds(function: Callable[[], object], *, at_most: float) -> float:
    """Median of the repeats, after one call that is not counted."""
    function()
    return statistics.median(repeated(function, at_most=at_most))
