"""What the engine's flow works on: rows and their branches, the desk they are worked on, passes counted."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

from flexray.engine.decode import DecodeBatch
from flexray.engine.decode_state import DecodeState
from flexray.engine.kv_pool import KVPool, Placement
from flexray.engine.prefill import PlacedRow, PrefillBatch
from flexray.engine.stats import EngineStats
from flexray.masks.layout import Sample, Trunk, View, lay_out
from flexray.methods import Choice, Draw, Method
from flexray.types import Backend, Prompt


@dataclass(frozen=True, slots=True)
class TrunkPlan:
    """Methods that answer from the same trunk, by their numbers in the run, so that it is prefilled once."""

    trunk: Trunk
    methods: tuple[tuple[int, Method], ...]


def plan_trunks(methods: Sequence[Method]) -> tuple[TrunkPlan, ...]:
    """The methods by trunk."""
    by_trunk: dict[Trunk, list[tuple[int, Method]]] = {}
    for number, method in enumerate(methods):
        by_trunk.setdefault(method.trunk, []).append((number, method))
    return tuple(TrunkPlan(trunk, tuple(found)) for trunk, found in by_trunk.items())


@dataclass(eq=False, slots=True)
class Branch:
    """An answer on its way."""

    row: Row
    number: int  # in its row
    method: int  # in the run
    choice: Choice
    draw: Draw | None
    weight: float  # in its group: the branches of one method that choose their tokens together
    place: int = -1  # in the decode state
    steps_left: int = 0  # decode steps until it is done at the latest
    token_ids: list[int] | None = None  # once it is done

    @property
    def group(self) -> tuple[int, int]:
        """What branches that choose together have in common."""
        return (self.row.index, self.method)


@dataclass(eq=False)
class Row:
    """A prompt on its way, with the branches of one trunk."""

    index: int  # of the prompt, in the caller's list
    prompt: Prompt
    plan: TrunkPlan
    max_new_tokens: int
    placement: Placement | None = None
    placed: PlacedRow | None = None

    @functools.cached_property
    def branches(self) -> tuple[Branch, ...]:
        return tuple(branch for branch, _ in self._branches)

    @functools.cached_property
    def sample(self) -> Sample:
        views = tuple(view for _, view in self._branches)
        return lay_out(self.prompt, self.plan.trunk, views, self.max_new_tokens)

    @functools.cached_property
    def _branches(self) -> list[tuple[Branch, View]]:
        found: list[tuple[Branch, View]] = []
        for number, method in self.plan.methods:
            if method.needs_confidences and self.prompt.confidences is None:
                continue
            views = method.views(self.prompt)
            weights = method.weights(self.prompt) if method.weights else [1 / len(views)] * len(views)
            draws = method.draws(self.prompt) if method.draws else [None] * len(views)
            for view, weight, draw in zip(views, weights, draws, strict=True):
                found.append((Branch(self, len(found), number, method.choice, draw, weight), view))
        return found

    @property
    def num_slots(self) -> int:
        """Slots of the pool that it takes."""
        return self.sample.shape.num_slots


@dataclass(slots=True)
class Desk:
    """What rows are worked on with: the pool, with one context in it, and the decoding state over it."""

    context: tuple[int, ...]
    pool: KVPool
    state: DecodeState
    group: int  # query heads for each key/value head
    biased: bool
    prefills: dict[int, PrefillBatch] = dataclasses.field(default_factory=dict)
    decodes: dict[tuple[Backend, Choice, int], DecodeBatch] = dataclasses.field(default_factory=dict)

    def prefill_batch(self, bucket: int) -> PrefillBatch:
        """The pass of that many tokens."""
        if bucket not in self.prefills:
            self.prefills[bucket] = PrefillBatch(bucket, self.pool, biased=self.biased)
        return self.prefills[bucket]

    def decode_batch(self, backend: Backend, choice: Choice, size: int) -> DecodeBatch:
        """The batch of that size."""
        key = (backend, choice, size)
        if key not in self.decodes:
            self.decodes[key] = DecodeBatch(
                size,
                self.state,
                self.pool,
                backend=backend,
                choice=choice,
                group=self.group,
                biased=self.biased,
            )
        return self.decodes[key]


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
