"""The nodes of the cluster, their CPUs and GPUs, and whether the cluster can grow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import ray
from ray._private.utils import get_num_cpus
from ray.experimental.internal_kv import _internal_kv_get

SLACK = 1e-6  # tolerance for rounding: 0.1 fits ten times into 1
_GROUP = "ray.io/node-group"  # a label of nodes that an autoscaler or Kubernetes has started
_STATUS = b"__autoscaling_status"  # the key that Ray's monitor writes on every cluster


@dataclass(frozen=True, slots=True)
class Node:
    """The resources of a machine, as Ray counts them."""

    cpus: float
    gpus: float = 0.0

    def room(self, cpus: float, gpus: float) -> int:
        """How many engines fit that need this many CPUs and GPUs each."""
        wanted = [(self.cpus, cpus), (self.gpus, gpus)]
        return min(int(have / each + SLACK) for have, each in wanted if each)


def find_nodes() -> list[Node]:
    """The nodes that are alive now."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(have.get("CPU", 0.0), have.get("GPU", 0.0)) for have in alive]


def this_machine(num_cpus: int | None, gpus: float) -> Node:
    """The node of a Ray cluster that is started on this machine with `num_cpus`; None: all that Ray finds."""
    return Node(float(num_cpus or get_num_cpus()), gpus)


def can_grow() -> bool:
    """Whether nodes are started on demand, by Kubernetes or by Ray's own autoscaler."""
    if any(_GROUP in (node.get("Labels") or {}) for node in ray.nodes()):
        return True
    status = json.loads(_internal_kv_get(_STATUS) or b"{}")
    # without an autoscaler, each node is reported as its own node type
    kinds = (status.get("autoscaler_report") or {}).get("node_type_mapping") or {}
    return any(kind != f"node_{node}" for node, kind in kinds.items())


def describe_resources(cpus: float, gpus: float) -> str:
    """Numbers of CPUs and GPUs as text.

    >>> describe_resources(1, 0), describe_resources(0.5, 2)
    ('1 CPU', '0.5 CPUs and 2 GPUs')
    """
    parts = [f"{n:g} {name}{'s' * (n != 1)}" for n, name in ((cpus, "CPU"), (gpus, "GPU"))]
    return " and ".join(parts if gpus else parts[:1])


def describe_nodes(nodes: Sequence[Node]) -> str:
    """The largest numbers of CPUs and GPUs among the nodes, as text."""
    if not nodes:
        return "there is no node yet"
    which = "the only node has" if len(nodes) == 1 else f"none of the {len(nodes)} nodes has more than"
    return f"{which} {describe_resources(max(n.cpus for n in nodes), max(n.gpus for n in nodes))}"
