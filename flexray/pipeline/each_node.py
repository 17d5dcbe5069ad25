"""Ask each node of the cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flexray.errors import ConfigError
from flexray.pipeline.failures import Failure, or_failure

T = TypeVar("T")


def ask_each_node(look: Callable[[], T]) -> dict[str, T | Failure]:
    """What a function returns in a process of each node that is there and may work.

    Args:
        look: pickled; a UserError or OSError that it raises becomes a Failure.

    Returns:
        The answers by node, named by host name and address. A node that is lost meanwhile is left out.

    Raises:
        ConfigError: flexray cannot be run on a node. The message names it.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    asked = [(f"{n['NodeManagerHostname']} ({n['NodeManagerAddress']})", _ask(n, look)) for n in nodes]
    answers: dict[str, T | Failure] = {}
    for name, answer in asked:
        try:
            answers[name] = ray.get(answer)
        except (RayTaskError, RuntimeEnvSetupError) as e:
            raise ConfigError(
                f"node {name}: flexray cannot be run there: {_last_line(e)}. Install this flexray there, for "
                "the Python that Ray runs with, or let `flexray submit` bring it."
            ) from e
        except RayError:  # the node is gone meanwhile, or its process was killed: the run will see
            continue
    return answers


def _ask(node: dict[str, Any], look: Callable[[], T]) -> Any:
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    task: Any = ray.remote(or_failure)
    return task.options(num_cpus=0, scheduling_strategy=there).remote(look)


def _last_line(error: RayError) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "").rstrip(".")
