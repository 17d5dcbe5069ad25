"""The nodes of the cluster, their CPUs and GPUs, and whether the cluster can grow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import ray
from ray._private.utils import get_num_cpus
from ray.experimental.internal_kv import _internal_kv_get

SLACK = 1e-6  # so that ten times 0.1 are 1
_GROUP = "ray.io/node-group"  # the label of a node that an autoscaler or Kubernetes has started
_STATUS = b"__autoscaling_status"  # where Ray's monitor writes, on every cluster


@dataclass(frozen=True, slots=True)
class Node:
    """A machine, as Ray counts what it has."""

    cpus: float
    gpus: float = 0.0

    def room(self, cpus: float, gpus: float) -> int:
        """How many engines fit that are given so much each."""
        wanted = [(self.cpus, cpus), (self.gpus, gpus)]
        return min(int(have / each + SLACK) for have, each in wanted if each)


def find_nodes() -> list[Node]:
    """The nodes that are there now."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(have.get("CPU", 0.0), have.get("GPU", 0.0)) for have in alive]


def this_machine(num_cpus: int | None, gpus: float) -> Node:
    """The node of a Ray that is started here with so many CPUs; None: with those that Ray finds."""
    return Node(float(num_cpus or get_num_cpus()), gpus)


def can_grow() -> bool:
    """Whether somebody starts nodes as they are asked for: Kubernetes, or Ray's own autoscaler."""
    if any(_GROUP in (node.get("Labels") or {}) for node in ray.nodes()):
        return True
    status = json.loads(_internal_kv_get(_STATUS) or b"{}")
    # where there is no autoscaler, each node is reported as a kind of its own
    kinds = (status.get("autoscaler_report") or {}).get("node_type_mapping") or {}
    return any(kind != f"node_{node}" for node, kind in kinds.items())


def describe_resources(cpus: float, gpus: float) -> str:
    """A number of CPUs and GPUs, in words.

    >>> describe_resources(1, 0), describe_resources(0.5, 2)
    ('1 CPU', '0.5 CPUs and 2 GPUs')
    """
    parts = [f"{n:g} {name}{'s' * (n != 1)}" for n, name in ((cpus, "CPU"), (gpus, "GPU"))]
    return " and ".join(parts if gpus else parts[:1])


def describe_nodes(nodes: Sequence[Node]) -> str:
    """What the largest of them have, in words."""
    if not nodes:
        return "there is no node yet"
    which = "the only node has" if len(nodes) == 1 else f"of {len(nodes)} nodes none has more than"
    return f"{which} {describe_resources(max(n.cpus for n in nodes), max(n.gpus for n in nodes))}"
