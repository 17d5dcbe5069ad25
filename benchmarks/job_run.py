"""`flexray run` as users start it, with a Ray of its own, watched from outside; and a kill in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psutil

from benchmarks.processes import Processes
from flexray.sink import OutputFolder
from flexray.sink.records.names import manifest_name

RANK = "flexray.engine.rank_main"


@dataclass(frozen=True, slots=True)
class Kill:
    """A process to kill once so many rows are committed."""

    after_rows: int
    seconds: float
    """To wait then, so that an engine's call is under way."""
    rank: bool = False
    """Kill the last rank of a split model, not the actor itself."""


@dataclass(slots=True)
class Watched:
    """What was seen of a run."""

    processes: Processes
    seconds: float = 0.0
    commits: dict[str, float] = field(default_factory=dict)
    """When the driver was told of each shard's commit, seconds since 1970."""
    killed: tuple[str, float] | None = None
    """The actor that was hit, as manifests name processes, and when."""


def run_job(recipe: Path, output: str, cards: int, kill: Kill | None = None) -> Watched:
    """Run a recipe to its end, on the first `cards` GPUs that this process sees. Raises SystemExit if the run
    fails."""
    environment = os.environ | {"FLEXRAY_LOG": "json", "HF_HUB_OFFLINE": "1", "RAY_worker_niceness": "0"}
    if cards:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        seen = seen if seen != [""] else [str(card) for card in range(cards)]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(seen[:cards])
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "flexray", "run", str(recipe)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    others: deque[str] = deque(maxlen=40)
    with Processes(process.pid) as processes:
        watched = Watched(processes)
        try:
            for line in process.stderr:
                if not line.startswith("{"):
                    others.append(line)
                    continue
                event = json.loads(line)
                if event["event"] != "shard.committed":
                    if event["level"] != "INFO":
                        others.append(line)
                    continue
                watched.commits[event["shard_id"]] = datetime.fromisoformat(event["time"]).timestamp()
                if kill and event["rows_done"] >= kill.after_rows:
                    arguments = (watched, OutputFolder(output), event["shard_id"], kill.rank)
                    timer = threading.Timer(kill.seconds, _kill, arguments)
                    timer.daemon, kill = True, None
                    timer.start()
            process.wait()
        finally:
            if process.poll() is None:
                process.terminate()  # it ends its Ray
                process.wait()
    if process.returncode:
        raise SystemExit(f"{recipe}: the run has ended with {process.returncode}\n{''.join(others)}")
    watched.seconds = time.monotonic() - start
    return watched


def _kill(watched: Watched, folder: OutputFolder, shard_id: str, rank: bool) -> None:
    """Kill the actor that has answered a shard, or the last rank that it has started."""
    name = json.loads(folder.read_bytes(manifest_name(shard_id)))["engine_stats"]["process"]
    victim = psutil.Process(int(name.rpartition(":")[2]))
    if rank:
        victim = [child for child in victim.children() if RANK in child.cmdline()][-1]
    watched.killed = name, time.time()
    victim.send_signal(signal.SIGKILL)
