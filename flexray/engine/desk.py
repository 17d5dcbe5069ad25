"""What the engine's flow works on: rows on their way, the desk they are worked on, passes counted."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

from flexray.config import MethodConfig
from flexray.engine.decode import DecodeBatch, DecodeState
from flexray.engine.kv_pool import KVPool, Placement
from flexray.engine.stats import EngineStats
from flexray.masks.layout import SampleLayout, lay_out
from flexray.types import Backend, Prompt


@dataclass
class Row:
    """A prompt on its way."""

    index: int  # in the caller's list
    prompt: Prompt
    method: MethodConfig
    placement: Placement | None = None
    steps_left: int = 0  # decode steps until it is done at the latest

    @functools.cached_property
    def sample(self) -> SampleLayout:
        return lay_out(self.prompt, self.method.layout, self.method.positions)

    @property
    def num_tokens(self) -> int:
        """Tokens to prefill."""
        return sum(map(len, self.prompt.segments)) + len(self.prompt.cue)

    @property
    def placed(self) -> Placement:
        assert self.placement is not None
        return self.placement


@dataclass(slots=True)
class Desk:
    """What rows are worked on with: the pool, with one context in it, and the decoding state over it."""

    context: tuple[int, ...]
    pool: KVPool
    state: DecodeState
    group: int  # query heads for each key/value head
    biased: bool
    batches: dict[tuple[Backend, int], DecodeBatch] = dataclasses.field(default_factory=dict)

    def batch(self, size: int, backend: Backend) -> DecodeBatch:
        """The batch of that size."""
        key = (backend, size)
        if key not in self.batches:
            self.batches[key] = DecodeBatch(
                size, self.state, self.pool, backend=backend, group=self.group, biased=self.biased
            )
        return self.batches[key]


@dataclass(slots=True)
class Passes:
    """Forward passes of one run by one backend, to be held against the calls that the device counted."""

    stats: EngineStats
    backend: Backend
    count: int = 0
    before: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.before = int(self.stats.calls[self.backend])

    def check(self, num_layers: int) -> None:
        """The proof that this backend, and no other, computed every layer of every pass."""
        counted = int(self.stats.calls[self.backend]) - self.before
        assert counted == self.count * num_layers, (
            f"{counted} calls, {self.count} passes of {num_layers} layers"
        )
