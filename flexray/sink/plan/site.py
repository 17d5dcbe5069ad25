"""Where planning is done: in this process or in others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from flexray.sink.plan.scratch import MemoryScratch, Scratch

T = TypeVar("T")
R = TypeVar("R")


class Mapper(Protocol):
    """Calls a function with each item, in this process (the built-in `map`) or in others, and yields the
    results in order of the items."""

    def __call__(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]: ...


@dataclass(frozen=True, slots=True)
class Site:
    """Where the steps run, and where they keep what they hand on."""

    map: Mapper
    scratch: Scratch


def in_process() -> Site:
    """All in this process, for small data."""
    return Site(map, MemoryScratch())
