"""A whole run on a Ray of this machine, with engines that answer at once: what a shard costs the driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from bisect import bisect
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import numpy as np
import typer

from benchmarks.machine import describe_commit, describe_machine
from benchmarks.models import SMOLLM2_FOLDER
from benchmarks.processes import Processes
from benchmarks.questions import make_config
from flexray.config import RunConfig

WINDOW = 5.0
"""Seconds."""


def pipeline(
    shards: Annotated[str, typer.Option(help="Of each run, by commas.")] = "100,200",
    shard_rows: int = 512,
    actors: int = 2,
) -> None:
    """The real plan, lock, pipeline, commit and compaction. A run a process. Last, what a shard costs the
    driver, and at how many rows a second its one thread has no time left."""
    head()
    costs: list[tuple[float, float]] = []
    print("| shards | rows | actors | seconds | shards/s | rows/s | process | CPU s | peak MiB | processes |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for count in map(int, shards.split(",")):
        found = in_process("scale_pipeline", "measure_pipeline", count, shard_rows, actors)
        took, rows = found["seconds"], count * shard_rows
        begin = f"| {count:,} | {rows:,} | {actors} | {took:.1f} | {count / took:.2f} | {rows / took:,.0f} "
        for kind, used in sorted(found["processes"].items()):
            cpu, rss = used.cpu_seconds, used.rss / 2**20
            print(f"{begin}| {kind} | {cpu:.1f} | {rss:.0f} | {used.processes} |", flush=True)
            begin = "| | | | | | "
        costs.append(driver_cost(found["timeline"], found["commits"]))
    print(
        "| driver, whatever happens, of a core | CPU ms a shard | shards/s at most | rows/s in shards of 512 "
        "| of 4,096 |\n|---|---|---|---|---|"
    )
    for idle, shard in costs:
        most = (1 - idle) / shard
        cells = [
            f"{idle:.3f}",
            f"{1000 * shard:.1f}",
            f"{most:.0f}",
            f"{512 * most:,.0f}",
            f"{4096 * most:,.0f}",
        ]
        print("| " + " | ".join(cells) + " |")


def measure_pipeline(shards: int, shard_rows: int, actors: int) -> dict[str, Any]:
    """Seconds from the first to the last commit."""
    from benchmarks.instant import InstantActor
    from flexray.console.progress import CommittedShard, Lines
    from flexray.pipeline.ray_connection import connect_ray
    from flexray.pipeline.ray_data import answer_shards
    from flexray.runs import run as running

    times: list[float] = []

    class Times(Lines):
        def committed(self, shard: CommittedShard) -> None:
            times.append(time.time())
            super().committed(shard)

    with tempfile.TemporaryDirectory() as place:
        config = make_config(Path(place), SMOLLM2_FOLDER, shards * shard_rows, shard_rows)
        config = _with_actors(config, actors)
        instant = partial(answer_shards, actor=InstantActor)
        connect_ray(config.ray)
        with mock.patch.object(running, "answer_shards", instant):
            result = running.run(config, progress=Times(lambda line: print(line, file=sys.stderr)))
        assert result.rows_now == shards * shard_rows
    return {"seconds": times[-1] - times[0], "commits": times}


def driver_cost(timeline: list[tuple[float, float]], commits: list[float]) -> tuple[float, float]:
    """Seconds of CPU that the driver takes each second, and besides for each shard: the least squares through
    windows of WINDOW seconds between the first and the last commit.

    Args:
        timeline: times, and seconds of CPU until then.
        commits: times, in order.
    """
    looks = [look for look in timeline if commits[0] <= look[0] <= commits[-1]]
    windows, edges = [], [looks[0]]
    for look in looks:
        if look[0] - edges[-1][0] >= WINDOW:
            edges.append(look)
    for (start, before), (end, after) in pairwise(edges):
        shards = bisect(commits, end) - bisect(commits, start)
        windows.append((end - start, shards, after - before))
    given = np.array(windows)
    (idle, shard), *_ = np.linalg.lstsq(given[:, :2], given[:, 2])
    return float(idle), float(shard)


def _with_actors(config: RunConfig, actors: int) -> RunConfig:
    """So many actors, which take nearly no CPUs from the two stages beside them."""
    ray = {
        "num_cpus": max(2, os.cpu_count() or 1),
        "num_cpus_per_actor": 0.01,
        "num_gpus_per_actor": 0.0,
        "min_actors": actors,
        "max_actors": actors,
    }
    return config.model_copy(update={"ray": config.ray.model_copy(update=ray)})


def head() -> None:
    """Print the machine, the commit and how busy the machine is."""
    machine = ", ".join(f"{key} {value}" for key, value in describe_machine().items())
    print(f"{machine}; commit {describe_commit()}; load {os.getloadavg()[0]:.1f}", flush=True)


def in_process(module: str, call: str, *arguments: Any) -> dict[str, Any]:
    """What a function of a module of `benchmarks` gives in a process of its own, and what was seen of it."""
    code = f"import json, sys; from benchmarks import {module}; name, *given = json.loads(sys.argv[1]); "
    code += f"print(json.dumps(getattr({module}, name)(*given)))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps([call, *arguments])], stdout=subprocess.PIPE, text=True
    )
    with Processes(process.pid) as processes:
        said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{call} has failed")
    found = json.loads(said.strip().splitlines()[-1])
    return {**found, "processes": processes.used(), "timeline": processes.timeline("driver")}
