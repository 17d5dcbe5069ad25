"""Whether each node of the cluster has what a run names of the Hugging Face hub, before any row is answered.

A folder is on storage that all nodes share. A cache may be each machine's own.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flexray.config import RunConfig
from flexray.data import list_files
from flexray.data.hub import folder_of
from flexray.errors import UserError
from flexray.models.hub import hub_model, model_folder
from flexray.pipeline.failures import Failure, or_failure


def check_nodes(config: RunConfig) -> None:
    """Look for the model and the data set in the cache of each node that is there and may work.

    Args:
        config: pinned, so that all nodes look for the same commits.

    Raises:
        ConfigError: a node does not have one of them. The message names the node.
    """
    data = config.data.hub
    if hub_model(config.model.path) is None and (data is None or folder_of(data) is not None):
        return
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    found = [(node["NodeManagerHostname"], _ask(node["NodeID"], config)) for node in nodes]
    for host, asked in found:
        try:
            failure = ray.get(asked)
        except RayError:  # the node is gone meanwhile, or its process was killed: the run will see
            continue
        if isinstance(failure, Failure):
            error = failure.error()
            raise type(error)(f"node {host}: {error}") if isinstance(error, UserError) else error


def _ask(node: str, config: RunConfig) -> Any:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(_look).options(num_cpus=0, scheduling_strategy=there).remote(config)


def _look(config: RunConfig) -> Failure | None:
    """In a worker process of the node."""

    def look() -> None:
        model_folder(config.model.path)
        if config.data.hub is not None:
            list_files(config.data)

    return or_failure(look)
