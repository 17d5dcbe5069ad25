"""Rows per second from jsonl to the plan of a new table: `python -m benchmarks.planning`.

Each size is planned in a process of its own, with a Ray of its own. The first size pays for the start of
workers. Of each further size it is told what the added rows take: time, and memory of the driver. CPU time is
that of all processes: on a machine that others use too, it tells more than rows per second.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.scan import record

CPUS = 2
CODE = "import sys; from benchmarks.planning import measure; measure(*sys.argv[1:])"


def make_file(path: Path, rows: int) -> None:
    """Rows as `benchmarks.scan` has them."""
    with path.open("w") as lines:
        for number in range(rows):
            lines.write(json.dumps(record(number)) + "\n")


def measure(source: str, kind: str) -> None:
    """Plan a file, by Ray or in a pool; print seconds, seconds of CPU, the driver's peak in bytes, rows."""
    import psutil
    import ray

    from flexray.config import parse_config
    from flexray.pipeline.ray_connection import connect_ray
    from flexray.pipeline.ray_map import RayMap
    from flexray.sink import OutputFolder, clear_scratch, plan_run
    from flexray.sink.plan.site import Mapper
    from flexray.sink.plan.staging import stage

    path = Path(source)
    folder = OutputFolder(str(path.parent / "out"))
    tree = {
        "output": folder.url,
        "model": {"path": "m"},
        "data": {"name": "bench", "files": source},
        "ray": {"num_cpus": CPUS, "object_store_mb": 200},
    }
    config = parse_config(tree, source="benchmark")
    pool = ProcessPoolExecutor(CPUS)
    if kind == "ray":
        connect_ray(config.ray)
    distribute: Mapper = pool.map if kind == "pool" else RayMap(config=config, stopped=lambda _: None)
    start = time.perf_counter()
    data = stage(config.data, folder, None, distribute)
    run = plan_run(
        folder,
        None,
        data,
        parts={"data": {"name": "bench", "split": "test"}},
        methods=("m",),
        config=config.model_dump(mode="json"),
        provenance={},
        sources="s",
    )
    seconds = time.perf_counter() - start
    clear_scratch(folder)
    cpu = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        times = process.cpu_times()
        cpu += times.user + times.system + times.children_user + times.children_system
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps([seconds, cpu, peak, run.planned_rows]))
    pool.shutdown()
    ray.shutdown()


def main(
    sizes: Annotated[list[int] | None, typer.Option("--rows", help="Give it for each size.")] = None,
    pool: Annotated[bool, typer.Option(help="Processes of a pool instead of Ray.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Has room for the largest file and its plan.")] = None,
) -> None:
    """Print a table."""
    from benchmarks.machine import describe_commit, describe_machine

    print(f"{describe_machine()}, {CPUS} processes at work; {describe_commit()}")
    print("| rows | s | rows/s | of those added | CPU us/row | driver's peak, MiB | B/row added |")
    print("|---|---|---|---|---|---|---|")
    before: tuple[int, float, int] | None = None
    for rows in sizes or [1_000_000, 3_000_000, 10_000_000]:
        place = Path(tempfile.mkdtemp(dir=folder))
        try:
            make_file(place / "rows.jsonl", rows)
            command = [sys.executable, "-c", CODE, str(place / "rows.jsonl"), "pool" if pool else "ray"]
            # else Ray's workers stand behind all other processes of the machine
            env = os.environ | {"RAY_worker_niceness": "0"}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        finally:
            shutil.rmtree(place)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        seconds, cpu, peak, planned = json.loads(done.stdout.strip().splitlines()[-1])
        assert planned == rows
        added = memory = ""
        if before:
            added = f"{(rows - before[0]) / (seconds - before[1]):,.0f}"
            memory = f"{(peak - before[2]) / (rows - before[0]):.1f}"
        cells = [f"{rows:,}", f"{seconds:.1f}", f"{rows / seconds:,.0f}", added, f"{cpu * 1e6 / rows:.1f}"]
        print("| " + " | ".join([*cells, f"{peak / 2**20:.0f}", memory]) + " |", flush=True)
        before = rows, seconds, peak


if __name__ == "__main__":
    typer.run(main)
