"""A Ray cluster on this machine, of nodes that can be lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from ray.cluster_utils import Cluster

from flexray.config.fault_injection import VARIABLE
from tests.ray.jobs import kill

OBJECT_STORE = 80 * 2**20
WORKERS = 2


class LossyCluster:
    """A head that computes nothing, where drivers connect, and worker nodes of one CPU each.

    Who starts one sets RAY_AUTH_MODE and RAY_AUTH_TOKEN before Ray is imported: then only its children
    get in.
    """

    def __init__(self) -> None:
        self._temp = Path(tempfile.mkdtemp(prefix="fx", dir="/tmp"))  # short: Ray makes sockets below it
        # Loopback, an address for each node as if they were machines, so that drivers connect to the head's.
        # Not 127.0.0.1, which Ray takes for the address of the host's network card.
        self._hosts = iter(f"127.0.{n // 250 + 1}.{n % 250 + 1}" for n in range(10_000))
        self._cluster = Cluster(shutdown_at_exit=True)

    def __enter__(self) -> Self:
        self._cluster.add_node(
            num_cpus=0,
            node_ip_address=next(self._hosts),
            object_store_memory=OBJECT_STORE,
            temp_dir=str(self._temp),
            include_dashboard=False,
        )
        for _ in range(WORKERS):
            self.add_node()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        processes = psutil.Process().children(recursive=True)
        try:
            self._cluster.shutdown()
        finally:
            kill(processes)
            shutil.rmtree(self._temp, ignore_errors=True)

    @property
    def address(self) -> str:
        return self._cluster.address

    def environment(self, faults: list[dict[str, Any]]) -> dict[str, str]:
        """Of a driver, whose workers then have the faults too: Ray takes the job's environment from it."""
        text = json.dumps(faults)
        job = {"runtime_env": {"env_vars": {VARIABLE: text}}, "metadata": {}}
        return {**os.environ, VARIABLE: text, "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job)}

    def engines(self) -> list[psutil.Process]:
        """The actors that hold an engine."""
        return [p for p in psutil.Process().children(recursive=True) if "AnswerActor" in command_of(p)]

    def lose_node(self, rnd: random.Random) -> None:
        """Kill all processes of one worker node."""
        node = rnd.choice(sorted(self._cluster.worker_nodes, key=lambda n: n.node_ip_address))
        processes = []
        for infos in node.all_processes.values():
            for info in infos:
                try:
                    parent = psutil.Process(info.process.pid)
                    processes += [parent, *parent.children(recursive=True)]
                except psutil.NoSuchProcess:
                    continue
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self._cluster.remove_node(node, allow_graceful=False)

    def add_node(self) -> None:
        """Add a worker node."""
        self._cluster.add_node(
            num_cpus=1, node_ip_address=next(self._hosts), object_store_memory=OBJECT_STORE, wait=True
        )


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended meanwhile
        return ""
