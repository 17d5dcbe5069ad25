"""The number of actors, the CPUs and GPUs of each, and how many shards an actor answers in one call."""

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
"""While the engine answers one call, the columns of another are read or written."""
SHORT_SECONDS, LONG_SECONDS = 20.0, 60.0
"""If an engine call takes less time, the next one gets more shards; if it takes more, fewer shards."""
PREPARE_CPUS, COMMIT_CPUS = 0.75, 0.25
"""Shares of `Settled.task_cpus`. On two CPUs, one prepare task, one commit task and one actor run at once."""
LEAST_CPUS = 0.5
"""The minimum for one prepare task and one commit task together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """The resources that a run requests from Ray."""

    config: RunConfig
    """The configuration with all settings of `ray` filled in: GPUs per actor, number of actors (at most the
    number of shards), and CPUs per actor, chosen so that some CPUs remain for prepare and commit tasks."""
    first: int
    """The number of actors to start with."""
    task_cpus: float
    """CPUs for one prepare task and one commit task together: 1, or less if the actors leave less."""
    note: str = ""
    """A line for the user, or ""."""


def settle_actors(config: RunConfig, nodes: Sequence[Node], shards: int, *, grows: bool = False) -> Settled:
    """Decide how many actors run on a cluster, and with which resources.

    Args:
        nodes: the current nodes.
        grows: whether nodes can be added later.

    Raises:
        ConfigError: no node has the resources that an actor needs, and no node can be added.
    """
    asked = config.ray
    gpus = asked.num_gpus_per_actor
    if gpus is None:
        some = any(node.gpus for node in nodes) and config.model.device != "cpu"
        gpus = float(config.engine.tensor_parallel) if some or config.model.device == "cuda" else 0.0
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
    """The most CPUs that are free on a single node, for any placement of the actors."""
    rooms = [node.room(cpus, gpus) for node in nodes]
    left = [n.cpus - cpus * min(room, actors) for n, room in zip(nodes, rooms, strict=True)]
    return max([*left, cpus if actors < sum(rooms) else 0.0], default=0.0)


def _no_room(config: RunConfig, cpus: float, gpus: float, nodes: Sequence[Node]) -> str:
    has = f"{describe_nodes(nodes)}"
    most_gpus = max((node.gpus for node in nodes), default=0.0)
    if gpus > most_gpus and (ranks := config.engine.tensor_parallel) > 1 and most_gpus:
        return (
            f"engine.tensor_parallel: {ranks}: an engine needs {ranks} GPUs on one node, but {has}. Set it "
            f"to at most {most_gpus:g}, if the model fits into so many (`flexray plan` says), or use a "
            "cluster with larger nodes."
        )
    if gpus > most_gpus and config.ray.num_gpus_per_actor is None:
        return f"model.device is cuda, but {has}. Set it to auto or cpu, or use a cluster with GPUs."
    key, most = "num_gpus_per_actor", most_gpus
    if gpus <= most_gpus:
        key, most = "num_cpus_per_actor", max((n.cpus for n in nodes if n.gpus >= gpus), default=0.0)
    advice = f"Set ray.{key} to at most {most:g}" if most else "Use a cluster that has them"
    return f"ray.{key}: an engine needs {describe_resources(cpus, gpus)} on one node, but {has}. {advice}."


def _note(config: RunConfig, nodes: Sequence[Node], room: int, cpus: float, gpus: float, least: int) -> str:
    asked = config.ray
    if not room:
        return (
            f"note: an engine needs {describe_resources(asked.num_cpus_per_actor, gpus)} on one node, but "
            f"{describe_nodes(nodes)}: waiting for the cluster to grow"
        )
    if least < asked.min_actors and least == room:
        return (
            f"note: ray.min_actors is {asked.min_actors}, but there is room only for {room} with "
            f"{describe_resources(asked.num_cpus_per_actor, gpus)} each: {least} will answer"
        )
    if asked.num_gpus_per_actor == 0 and config.model.device != "cpu" and any(n.gpus for n in nodes):
        return "note: ray.num_gpus_per_actor is 0: the engines run on CPUs, and the cluster's GPUs stay idle"
    return ""


def actor_arguments(settled: Settled) -> dict[str, Any]:
    """Arguments of `map_batches`. Every GPU of the current nodes gets its actor at the start."""
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
    """The arguments of `ActorPoolStrategy` and of `map_batches` that let an actor run this many calls at the
    same time. Ray 2.55 accepts this setting only in `map_batches`."""
    if "max_concurrent_calls_per_actor" in inspect.signature(ray.data.ActorPoolStrategy).parameters:
        return {"max_concurrent_calls_per_actor": calls}, {}
    return {}, {"max_concurrency": calls}


def let_pools_grow(settings: ray.data.DataContext) -> None:
    """Start another actor as soon as all actors have as many calls as allowed. Ray's default threshold, 1.75
    times the calls that an actor runs at once, would never be reached. Stop no actor before the run ends: its
    compiled kernels would be lost."""
    settings.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    settings.autoscaling_config.actor_pool_util_downscaling_threshold = -1.0


def shards_a_call(shards: Sequence[ShardSpec], config: RunConfig) -> int:
    """How many shards an actor gets in one call: enough for several full batches, but few enough that each
    actor gets several calls. `config` is that of `settle_actors`."""
    assert config.ray.max_actors is not None
    several = len(shards) // (CALLS_AN_ACTOR * config.ray.max_actors)
    return max(1, min(CALL_BATCHES * _rows_at_once(config) // config.data.shard_rows, several))


def _rows_at_once(config: RunConfig) -> int:
    return config.engine.max_num_seqs or (512 if config.ray.num_gpus_per_actor else 32)


class Pace:
    """How many shards the engine answers in one call. Answers are committed after each call, so calls are
    short on a slow device. On a fast device they are long, because the device idles between calls.

    The first call contains two full batches, so that the engine sees the sizes that it will need.
    """

    def __init__(self, config: RunConfig) -> None:
        self.shards = max(1, 2 * _rows_at_once(config) // config.data.shard_rows)

    def took(self, shards: int, seconds: float) -> None:
        """Adapt to a call with this many shards that took this many seconds."""
        if seconds < SHORT_SECONDS and shards == self.shards:
            self.shards *= 2
        elif seconds > LONG_SECONDS:
            self.shards = max(1, self.shards // 2)
