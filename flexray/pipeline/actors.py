"""How many actors answer, how many GPUs each has, and how many shards it is given at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray.data

from flexray.compat import calls_at_once
from flexray.config import RunConfig
from flexray.types import ShardSpec

CALL_BATCHES = 8
CALLS_AN_ACTOR = 4
CALLS_AT_ONCE = 2
"""One that the engine answers, and one beside it: the last one packed, or the next one unpacked."""


def settle_actors(config: RunConfig, resources: Mapping[str, float], shards: int) -> RunConfig:
    """The configuration with what `ray` leaves open: the GPUs of an actor, and the most actors. There are no
    more of them than shards.

    Args:
        resources: what the cluster has, by Ray's names.
    """
    have = resources.get("GPU", 0.0)
    gpus = config.ray.num_gpus_per_actor
    if gpus is None:
        gpus = 1.0 if have and config.model.device != "cpu" else 0.0
    most = config.ray.max_actors
    if most is None:
        most = max(config.ray.min_actors, int(have / gpus) if gpus else 1)
    most = max(1, min(most, shards))
    least = min(config.ray.min_actors, most)
    settled = {"num_gpus_per_actor": gpus, "min_actors": least, "max_actors": most}
    return config.model_copy(update={"ray": config.ray.model_copy(update=settled)})


def actor_arguments(config: RunConfig, resources: Mapping[str, float]) -> dict[str, Any]:
    """How `map_batches` is told of the actors of a settled configuration. The GPUs that are there have theirs
    from the start."""
    least, most, gpus = config.ray.min_actors, config.ray.max_actors, config.ray.num_gpus_per_actor
    assert most is not None
    assert gpus is not None
    at_once, of_stage = calls_at_once(CALLS_AT_ONCE)
    first = int(resources.get("GPU", 0.0) / gpus) if gpus else least
    pool = ray.data.ActorPoolStrategy(
        min_size=least,
        max_size=most,
        initial_size=min(most, max(least, first)),
        max_tasks_in_flight_per_actor=CALLS_AT_ONCE,
        enable_true_multi_threading=True,
        **at_once,
    )
    return {"compute": pool, "num_cpus": config.ray.num_cpus_per_actor, "num_gpus": gpus, **of_stage}


def let_pools_grow(settings: ray.data.DataContext) -> None:
    """An actor more as soon as all have as many calls as they may have, which Ray's own limit of 1.75 of what
    they do at once would never see. And none less before the end: what an actor has compiled is dear."""
    settings.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    settings.autoscaling_config.actor_pool_util_downscaling_threshold = -1.0


def shards_a_call(shards: Sequence[ShardSpec], config: RunConfig) -> int:
    """Shards that an actor answers in one call, enough for several full batches; but no more than leave
    each actor several calls. Of a settled configuration."""
    assert config.ray.max_actors is not None
    rows = CALL_BATCHES * (config.engine.max_num_seqs or (512 if config.ray.num_gpus_per_actor else 32))
    several = len(shards) // (CALLS_AN_ACTOR * config.ray.max_actors)
    return max(1, min(rows // config.data.shard_rows, several))
