"""How many actors answer, the CPUs and GPUs of each, and how many shards it answers at once."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray.data

from flexray.config import RunConfig
from flexray.data.question import ShardSpec
from flexray.errors import ConfigError
from flexray.pipeline.nodes import Node, describe_nodes, describe_resources

CALL_BATCHES = 8
CALLS_AN_ACTOR = 4
CALLS_AT_ONCE = 2
"""One that the engine answers, and one that is packed or unpacked beside it."""
SHORT_SECONDS, LONG_SECONDS = 20.0, 60.0
"""Of a call of the engine: shorter calls are made longer, longer ones shorter."""
PREPARE_CPUS, COMMIT_CPUS = 0.75, 0.25
"""Of a CPU: on two, one of these, one commit, one actor."""
LEAST_CPUS = 0.5
"""For both of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """The resources that Ray is asked for."""

    config: RunConfig
    """With the settings filled in that `ray` leaves open: GPUs of an actor, number of actors (no more than
    shards), and CPUs of an actor such that some are left for reading and committing."""
    first: int
    """Actors that are started at once."""
    task_cpus: float
    """For preparing and committing a shard: 1, or what the actors leave."""
    note: str = ""
    """A line for the user; "": none."""


def settle_actors(config: RunConfig, nodes: Sequence[Node], shards: int, *, grows: bool = False) -> Settled:
    """Fit the actors into a cluster.

    Args:
        nodes: those that are there. grows: there can be more.

    Raises:
        ConfigError: no node has what an actor wants, nor will one have it.
    """
    asked = config.ray
    gpus = asked.num_gpus_per_actor
    if gpus is None:
        some = any(node.gpus for node in nodes) and config.model.device != "cpu"
        gpus = 1.0 if some or config.model.device == "cuda" else 0.0
    cpus = asked.num_cpus_per_actor
    room = sum(node.room(cpus, gpus) for node in nodes)
    if not room and not grows:
        raise ConfigError(_no_room(config, cpus, gpus, nodes))
    most = asked.max_actors
    if most is None:
        most = max(asked.min_actors, sum(node.room(0, gpus) for node in nodes) if gpus else 1)
    if not grows:
        most = min(most, room)
    most = max(1, min(most, shards))
    least = min(asked.min_actors, most)
    left = _left(nodes, cpus, gpus, most)
    if room and left < LEAST_CPUS:
        cpus = round(cpus / 2, 4)
        left = _left(nodes, cpus, gpus, most)
    settled = {
        "num_gpus_per_actor": gpus,
        "num_cpus_per_actor": cpus,
        "min_actors": least,
        "max_actors": most,
    }
    return Settled(
        config=config.model_copy(update={"ray": asked.model_copy(update=settled)}),
        first=min(most, max(least, room if gpus else least)),
        task_cpus=round(min(1.0, left), 4) if left > 0 else 1.0,
        note=_note(config, nodes, room, cpus, gpus, least),
    )


def _left(nodes: Sequence[Node], cpus: float, gpus: float, actors: int) -> float:
    """CPUs that are certainly left on one node, whichever nodes the actors are on."""
    rooms = [node.room(cpus, gpus) for node in nodes]
    left = [n.cpus - cpus * min(room, actors) for n, room in zip(nodes, rooms, strict=True)]
    return max([*left, cpus if actors < sum(rooms) else 0.0], default=0.0)


def _no_room(config: RunConfig, cpus: float, gpus: float, nodes: Sequence[Node]) -> str:
    has = f"{describe_nodes(nodes)}"
    most_gpus = max((node.gpus for node in nodes), default=0.0)
    if gpus > most_gpus and config.ray.num_gpus_per_actor is None:
        return f"model.device is cuda, and {has}. Set it to auto or cpu, or use a cluster with GPUs."
    key, most = "num_gpus_per_actor", most_gpus
    if gpus <= most_gpus:
        key, most = "num_cpus_per_actor", max((n.cpus for n in nodes if n.gpus >= gpus), default=0.0)
    advice = f"Set ray.{key} to {most:g} at most" if most else "Use a cluster that has some"
    return f"ray.{key}: an engine wants {describe_resources(cpus, gpus)} on one node, and {has}. {advice}."


def _note(config: RunConfig, nodes: Sequence[Node], room: int, cpus: float, gpus: float, least: int) -> str:
    asked = config.ray
    if not room:
        return (
            f"note: an engine wants {describe_resources(asked.num_cpus_per_actor, gpus)} on one node, and "
            f"{describe_nodes(nodes)}: waiting for the cluster to grow"
        )
    if least < asked.min_actors and least == room:
        return (
            f"note: ray.min_actors is {asked.min_actors}, and there is room for {room} with "
            f"{describe_resources(asked.num_cpus_per_actor, gpus)} each: {least} will answer"
        )
    if asked.num_gpus_per_actor == 0 and config.model.device != "cpu" and any(n.gpus for n in nodes):
        return "note: ray.num_gpus_per_actor is 0: the engines are on CPUs, and the cluster's GPUs are idle"
    return ""


def actor_arguments(settled: Settled) -> dict[str, Any]:
    """Arguments of `map_batches`. Each GPU that is there has its actor from the start."""
    wanted = settled.config.ray
    at_once, of_stage = _calls_at_once(CALLS_AT_ONCE)
    pool = ray.data.ActorPoolStrategy(
        min_size=wanted.min_actors,
        max_size=wanted.max_actors,
        initial_size=settled.first,
        max_tasks_in_flight_per_actor=CALLS_AT_ONCE,
        enable_true_multi_threading=True,
        **at_once,
    )
    needs = {"num_cpus": wanted.num_cpus_per_actor, "num_gpus": wanted.num_gpus_per_actor}
    return {"compute": pool, **needs, **of_stage}


def _calls_at_once(calls: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of `ActorPoolStrategy` and of `map_batches` that let an actor have so many calls at once.
    Ray 2.55 takes them only in the latter."""
    if "max_concurrent_calls_per_actor" in inspect.signature(ray.data.ActorPoolStrategy).parameters:
        return {"max_concurrent_calls_per_actor": calls}, {}
    return {}, {"max_concurrency": calls}


def let_pools_grow(settings: ray.data.DataContext) -> None:
    """Start another actor as soon as all have as many calls as they may have; Ray's own limit, 1.75 of what
    they do at once, would never be reached. Stop none before the end: its compiled kernels would be lost."""
    settings.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    settings.autoscaling_config.actor_pool_util_downscaling_threshold = -1.0


def shards_a_call(shards: Sequence[ShardSpec], config: RunConfig) -> int:
    """Shards that an actor is given in one call, enough for several full batches; but no more than leave
    each actor several calls. Of a settled configuration."""
    assert config.ray.max_actors is not None
    several = len(shards) // (CALLS_AN_ACTOR * config.ray.max_actors)
    return max(1, min(CALL_BATCHES * _rows_at_once(config) // config.data.shard_rows, several))


def _rows_at_once(config: RunConfig) -> int:
    return config.engine.max_num_seqs or (512 if config.ray.num_gpus_per_actor else 32)


class Pace:
    """How many shards the engine answers in one call. Answers are committed after each call, so calls are
    short on a slow device; on a fast one they are long, so that the device does not run empty between them.

    The first call is enough for two full batches: the engine then has the sizes that it will need.
    """

    def __init__(self, config: RunConfig) -> None:
        self.shards = max(1, 2 * _rows_at_once(config) // config.data.shard_rows)

    def took(self, shards: int, seconds: float) -> None:
        """Adapt to a call that took so many seconds."""
        if seconds < SHORT_SECONDS and shards == self.shards:
            self.shards *= 2
        elif seconds > LONG_SECONDS:
            self.shards = max(1, self.shards // 2)
