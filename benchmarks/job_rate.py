"""What a job's manifests say of its speed, and of what a kill has cost.

Each actor's clock counts, from the end of a call of the engine to the end of a later one, with whatever it
waits for in between. Commits are no clock: they arrive in bunches.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flexray.pipeline.actors import CALL_BATCHES
from flexray.sink import Manifest


@dataclass(slots=True)
class Call:
    """A call of the engine, by the manifests of its shards."""

    end: float = 0.0
    rows: int = 0
    shards: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """What an actor has done while all ran: without its first calls, that compile, and its last one."""

    rows: int
    start: float
    end: float
    seconds: float
    """Of calls."""

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / (self.end - self.start)


@dataclass(frozen=True, kw_only=True, slots=True)
class Steady:
    """A job while all its actors answer."""

    rows_per_second: float
    """Of all actors, each by its own clock."""
    seconds: float
    """Of the actor that was measured for the shortest time."""
    busy: float
    """Share of its time that an actor spends in calls of the engine, on average."""
    start: float
    end: float
    """While all actors are measured, seconds since 1970."""


def calls_of(manifests: Iterable[Manifest]) -> dict[str, list[Call]]:
    """The calls of each process, in order."""
    found: defaultdict[str, defaultdict[str, Call]] = defaultdict(lambda: defaultdict(Call))
    for manifest in manifests:
        stats = manifest.engine_stats
        call = found[stats["process"]][stats["counted_in"] or manifest.shard_id]
        call.end = max(call.end, stats["answered_at"])
        call.rows += manifest.rows
        call.shards += 1
        call.seconds += stats["seconds"]
    return {process: sorted(calls.values(), key=lambda call: call.end) for process, calls in found.items()}


def lanes_of(calls: Mapping[str, list[Call]], until: float = float("inf")) -> dict[str, Lane]:
    """Of each process, as far as it has answered before `until`. Those with too few calls have none."""
    lanes: dict[str, Lane] = {}
    for process, all_calls in calls.items():
        some = [call for call in all_calls if call.end <= until]
        shards = first = 0
        while first < len(some) and shards < CALL_BATCHES:
            shards += some[first].shards
            first += 1
        counted = some[first:-1]
        if shards >= CALL_BATCHES and counted:
            lanes[process] = Lane(
                rows=sum(call.rows for call in counted),
                start=some[first - 1].end,
                end=counted[-1].end,
                seconds=sum(call.seconds for call in counted),
            )
    return lanes


def steady(lanes: Mapping[str, Lane], actors: int) -> Steady:
    """The whole job. Raises SystemExit if an actor was not measured."""
    if len(lanes) != actors:
        raise SystemExit(f"{len(lanes)} of {actors} actors had enough to do; more --seconds, please")
    every = lanes.values()
    return Steady(
        rows_per_second=sum(lane.rate for lane in every),
        seconds=min(lane.end - lane.start for lane in every),
        busy=statistics.mean(lane.seconds / (lane.end - lane.start) for lane in every),
        start=max(lane.start for lane in every),
        end=min(lane.end for lane in every),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """What a kill has cost."""

    until_answers: float | None
    """Seconds until the actor that came in its place has answered; None: it came too late for any."""
    actor_seconds: float
    """Of work that steady actors would have done in the same time: what was lost with the process, its start,
    and the small calls that look for a row that crashes."""


def loss(calls: Mapping[str, list[Call]], lanes: Mapping[str, Lane], killed: str, when: float) -> Loss:
    """What a kill has cost.

    Args:
        calls: of all processes.
        lanes: until the kill; a process without one came in place of the killed one.
        killed: the process, and `when` it was killed.
    """
    came = [call for process, some in calls.items() if process not in lanes for call in some]
    others = [calls[process][-1].end for process in lanes if process != killed]
    lost = 0.0
    for process, lane in lanes.items():
        before = max(call.end for call in calls[process] if call.end <= when)
        after = [call for call in calls[process] if call.end > when]
        if process == killed:
            after += came
        end = max((call.end for call in after), default=min(others, default=before))
        lost += end - before - sum(call.rows for call in after) / lane.rate
    first = min((call.end for call in came), default=None)
    return Loss(until_answers=None if first is None else first - when, actor_seconds=lost)
