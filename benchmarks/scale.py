"""What is around the engine, at very many shards: `python -m benchmarks.scale sink|s3|plan|stages|pipeline`.

    sink      an output folder of 100,000 committed shards: start, listing, readers, compaction
    s3        the CPU time of a client that reads manifests from an S3 server on loopback
    plan      one shard read from a plan file, by the number of shards in the file
    stages    CPU of preparing, handing on and committing a shard, one after the other in this process
    pipeline  a whole `flexray run` on a Ray of this machine, with engines that answer at once

docs/scale.md has the results, and what follows from them. CPU time is the figure to trust: on a machine that
others use too, seconds tell little.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer

from benchmarks.models import SMOLLM2_FOLDER
from benchmarks.questions import make_config
from benchmarks.scale_pipeline import head, in_process, pipeline
from benchmarks.scale_sink import (
    AGAIN,
    COMPACTION,
    MANIFESTS,
    STEPS,
    make_part,
    measure_step,
    sizes,
    write_folder,
)
from flexray.sink import OutputFolder, specs_of
from flexray.sink.commit.manifests import list_manifests
from flexray.storage import retry

app = typer.Typer(help=__doc__, no_args_is_help=True)
app.command()(pipeline)


@app.command()
def sink(shards: int = 100_000) -> None:
    """Each step in a process of its own; those that read manifests once more after the compaction."""
    head()
    with tempfile.TemporaryDirectory() as place:
        folder = OutputFolder(place)
        write_folder(folder, shards)
        print(f"{shards:,} shards; bytes: {sizes(folder)}")
        print("| step | seconds | CPU s | MiB |\n|---|---|---|---|")
        for name in (*STEPS, *AGAIN):
            found = in_process("scale", "measure_step_in", place, name)
            print(f"| {name} | {found['seconds']:.1f} | {found['cpu_seconds']:.1f} | {found['mib']:.0f} |")
        print(f"bytes after compaction: {sizes(folder)}")


@app.command()
def s3(shards: int = 500) -> None:
    """The server is a process of its own, so what is measured is the client: s3fs, TLS left out."""
    head()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
    )
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        with tempfile.TemporaryDirectory() as place:
            local, folder = OutputFolder(place), OutputFolder("s3://bench/out")
            record = write_folder(local, shards)
            retry(folder.url, lambda: folder._fs.mkdir("bench"), patience=60)  # until the server is up
            for name in list_manifests(local).singles:
                folder.write_bytes(name, local.read_bytes(name))
        print(f"{shards} manifests\n| step | CPU ms a shard |\n|---|---|")
        for name in (MANIFESTS, COMPACTION, MANIFESTS):
            start = time.process_time()
            STEPS[name](folder, record)
            print(f"| {name} | {1000 * (time.process_time() - start) / shards:.2f} |", flush=True)
    finally:
        server.kill()
        server.wait()


def measure_step_in(place: str, name: str) -> dict[str, float]:
    """As `measure_step`."""
    return measure_step(OutputFolder(place), name)


@app.command()
def plan(shards: Annotated[str, typer.Option(help="In the file, by commas.")] = "195,2000,10000") -> None:
    """Shards of one question, so that all is the price of the file's footer."""
    from flexray.data.plan_rows import read_planned
    from flexray.data.question import ShardSpec

    head()
    print("| shards in the file | write, CPU s | read a shard, CPU ms | MB |\n|---|---|---|---|")
    for count in map(int, shards.split(",")):
        with tempfile.TemporaryDirectory() as place:
            folder = OutputFolder(place)
            start = time.process_time()
            file = make_part(folder, 0, 0, count).file
            written = time.process_time() - start
            spec = ShardSpec(
                shard_id="x", file=folder.url_of(file.file), row_group=count // 2, num_rows=1, methods=("m",)
            )
            read = _cpu(lambda spec=spec: read_planned(spec), 5)
            print(f"| {count:,} | {written:.1f} | {1000 * read:.1f} | {file.bytes / 1e6:.1f} |", flush=True)


@app.command()
def stages(shards: int = 8, shard_rows: int = 512) -> None:
    """No Ray: what each stage computes, and how large the blocks between them are."""
    from benchmarks.instant import InstantAnswerer
    from flexray.pipeline.columns import answered_row, prepared_row, read_answered, read_prepared
    from flexray.pipeline.prepare import prepare_shard
    from flexray.runs.commit import Commit
    from flexray.runs.job import check_job
    from flexray.runs.job import plan as plan_job

    head()
    with tempfile.TemporaryDirectory() as place:
        config = make_config(Path(place), SMOLLM2_FOLDER, (shards + 1) * shard_rows, shard_rows)
        folder = OutputFolder(config.output)
        record = plan_job(check_job(config, folder), folder).record
        commit = Commit(folder.url, record.fingerprint)
        answerer = InstantAnswerer(config)
        taken: dict[str, float] = {}
        blocks: dict[str, int] = {}

        def stage(name: str, call: Callable[[], Any], count: bool) -> Any:
            start = time.process_time()
            found = call()
            if count:
                taken[name] = taken.get(name, 0.0) + time.process_time() - start
            if isinstance(found, pa.Table):
                blocks[name] = found.nbytes
            return found

        for number, spec in enumerate(specs_of(folder, record).values()):
            measured = partial(stage, count=number > 0)  # the first one imports
            prepared = measured("prepare", lambda: prepared_row(prepare_shard(spec, config)))  # noqa: B023
            (given,) = measured("answer: read", lambda: list(read_prepared(prepared)))  # noqa: B023
            done = measured("answer: engine at once", lambda: answerer.answer(given))  # noqa: B023
            answered = measured("answer: write", lambda: answered_row(done))  # noqa: B023
            (read,) = measured("commit: read", lambda: list(read_answered(answered)))  # noqa: B023
            measured("commit: score, write, sync", lambda: commit(read))  # noqa: B023
    print(f"{shards} shards of {shard_rows}\n| stage | CPU ms a shard | bytes handed on |\n|---|---|---|")
    for name, seconds in taken.items():
        print(f"| {name} | {1000 * seconds / shards:.1f} | {blocks.get(name, '')} |")
    print(f"| all | {1000 * sum(taken.values()) / shards:.1f} | |")


def _cpu(call: Callable[[], Any], times: int) -> float:
    call()
    start = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - start) / times


if __name__ == "__main__":
    app()
