"""Models split over this machine's GPUs: `python -m benchmarks.parallel`, for any number of them.

All GPUs are at work in each case: engines of 2, of 4, .. GPUs, as many as fit, beside each other; for shapes
that one GPU holds, of 1 too. Each GPU has a process of its own. Samples are W1, all in one call. The limit is
that of the matrix products alone of what a card holds, at full batches, with lm_head, which each card has
whole. Weights are random, made on the cards; with --folder they are loaded from a checkpoint there, as a run
loads them, and the time to load is measured. Without GPUs a tiny shape is measured, only for trying.

`python -m benchmarks.job --tensor-parallel 2 --kill` is a whole job with such a model; a rank is killed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

DTYPES = {"bf16": None, "fp8": "fp8"}
WORKER = "FLEXRAY_BENCHMARK_RANK"
"""Environment variable: a worker's settings as JSON."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Copies of an engine, each on so many cards."""

    shape: str
    ranks: int
    copies: int = 1
    quantization: str | None = None


ALONE = ("3b", "8b", "tiny")
"""Shapes that one card holds."""
COLUMNS = (
    "model", "engines x GPUs", "samples/s", "of an engine", "of the limit", "KV slots",
    "GiB for keys and values", "GiB when loaded", "s to load",
)  # fmt: skip


def cases_for(shape: str, dtypes: Sequence[str], cards: int) -> list[Case]:
    """All ways to share the cards among engines that have 2, 4, .. each, or 1."""
    sizes = [2**i for i in range(0 if shape in ALONE else 1, 10) if 2**i <= cards]
    return [
        Case(shape=shape, ranks=ranks, copies=cards // ranks, quantization=DTYPES[dtype])
        for dtype in dtypes
        for ranks in sizes
    ]


def measure(
    case: Case, rank: int, card: int, port: int, samples: int, checkpoint: str | None
) -> dict[str, Any]:
    """What a worker does; all ranks of an engine do the same."""
    import torch

    from benchmarks.clock import repeated
    from benchmarks.limit import measure_split_limit
    from benchmarks.models import NoStops
    from benchmarks.parts import make_part
    from benchmarks.work import CPU, GPU, W1
    from flexray.config import EngineConfig, GenerationConfig, MethodConfig
    from flexray.engine.engine import Engine
    from flexray.engine.parallel_engine import LOOPBACK, connect
    from flexray.engine.ranks import talk_on_loopback
    from flexray.engine.scheduler_config import slot_bytes
    from flexray.models import llama
    from flexray.models.all_reduce import join_ranks
    from flexray.models.checkpoint import load_model

    on_gpu = torch.cuda.is_available()
    device, group = torch.device("cpu"), None
    if on_gpu:
        device = torch.device("cuda", card)
        torch.cuda.set_device(device)
    if case.ranks > 1:
        talk_on_loopback()
        listener = socket.create_server((LOOPBACK, port)) if rank == 0 else None
        group = join_ranks(rank, case.ranks, connect(port, listener=listener), device)
    start = time.perf_counter()
    if checkpoint:
        part, _ = load_model(checkpoint, device=device, rank=rank, ranks=case.ranks)
        part.generation_config.eos_token_id = None
    else:
        part = make_part(case.shape, rank, case.ranks, device)
    model = llama.patch(part, case.quantization, group)  # type: ignore[arg-type]
    loading = time.perf_counter() - start
    made = torch.cuda.max_memory_allocated() if on_gpu else 0
    limit = measure_split_limit(model, GPU if on_gpu else CPU)
    engine = Engine(
        part,
        NoStops(),  # type: ignore[arg-type]
        [MethodConfig()],
        GenerationConfig(max_new_tokens=W1.new_tokens, stop_at_newline=False),
        EngineConfig(strict=True),
        case.quantization,  # type: ignore[arg-type]
        group,
    )
    calls = iter([W1.prompts(samples, part.config.vocab_size, seed) for seed in range(6)])
    for _ in range(3):  # compiles, captures
        engine.generate(next(calls))
    taken = repeated(lambda: engine.generate(next(calls)), at_most=float("inf"), repeats=3)
    slots = engine.fallback.full_sizes.max_num_slots
    return {
        "rate": samples / statistics.median(taken),
        "limit": limit,
        "slots": slots,
        "cache_gib": slots * slot_bytes(part.config, model.dtype.itemsize) / 2**30,
        "made_gib": made / 2**30,
        "load_seconds": loading if checkpoint else None,
    }


def main(
    samples: Annotated[int, typer.Option(help="In one call. 0: 512, without GPUs 8.")] = 0,
    shape: Annotated[str, typer.Option(help="By commas. Without GPUs: tiny.")] = "70b,8b",
    dtype: Annotated[str, typer.Option(help="Of bf16 and fp8, by commas.")] = "bf16,fp8",
    gpus: Annotated[int, typer.Option(help="0: all that there are, without GPUs 2 processes.")] = 0,
    folder: Annotated[Path | None, typer.Option(help="Load checkpoints, which are written here.")] = None,
) -> None:
    """Print a table, each line as soon as it is known."""
    import torch

    from benchmarks.checkpoint import save_checkpoint
    from benchmarks.machine import describe_commit, describe_machine

    cards = torch.cuda.device_count()
    gpus = gpus or cards or 2
    if 0 < cards < gpus:
        raise typer.BadParameter(f"needs {gpus} GPUs, and torch finds {cards}")
    samples = samples or (512 if cards else 8)
    print(
        f"{describe_machine()}, {gpus} GPUs\ncommit {describe_commit()}; {samples} samples of W1 in a call\n"
    )
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    failed = []
    for name in shape.split(",") if cards else ["tiny"]:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            checkpoint = None
            if folder:
                checkpoint = save_checkpoint(Path(place), name, "cuda" if cards else "cpu")
            for case in cases_for(name, dtype.split(","), gpus):
                try:
                    print(_line(case, _in_processes(case, samples, checkpoint)), flush=True)
                except RuntimeError as e:  # the others are worth having, and the exit code tells
                    print(f"{e}", file=sys.stderr, flush=True)
                    failed.append(case)
    if failed:
        raise SystemExit(f"failed: {failed}")


def _line(case: Case, found: list[dict[str, Any]]) -> str:
    """A row of the table. `found`: of rank 0 of each copy; a card's memory is that of each."""
    rate, limit = sum(f["rate"] for f in found), sum(f["limit"] for f in found)
    first, loading = found[0], [f["load_seconds"] for f in found]
    cells = [
        f"{case.shape} {case.quantization or 'bf16'}",
        f"{case.copies} x {case.ranks}",
        f"{rate:.1f}",
        f"{rate / case.copies:.1f}",
        f"{rate / limit:.0%}",
        f"{first['slots']:,}",
        f"{first['cache_gib']:.1f}",
        f"{first['made_gib']:.1f}" if first["made_gib"] else "-",
        f"{max(loading):.0f}" if None not in loading else "-",
    ]
    return "| " + " | ".join(cells) + " |"


def _in_processes(case: Case, samples: int, checkpoint: Path | None) -> list[dict[str, Any]]:
    """What rank 0 of each copy has measured. Raises RuntimeError if a process fails."""
    workers = []
    for copy in range(case.copies):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        for rank in range(case.ranks):
            settings = {"rank": rank, "card": copy * case.ranks + rank, "port": port, "samples": samples}
            settings["checkpoint"] = str(checkpoint) if checkpoint else None
            told = json.dumps({"case": dataclasses.asdict(case), **settings})
            command = [sys.executable, "-m", "benchmarks.parallel"]
            workers.append(subprocess.Popen(command, env=os.environ | {WORKER: told}, stdout=subprocess.PIPE))
    try:
        while any(worker.poll() is None for worker in workers):
            if failed := [worker.returncode for worker in workers if worker.returncode]:
                raise RuntimeError(f"{case}: a process has ended with {failed[0]}")
            time.sleep(0.2)
    finally:
        for worker in workers:
            worker.kill()
    said = [worker.communicate()[0].decode().strip().splitlines() for worker in workers]
    if failed := [worker.returncode for worker in workers if worker.returncode]:
        raise RuntimeError(f"{case}: a process has ended with {failed[0]}")
    return [json.loads(lines[-1]) for lines in said[:: case.ranks]]


def _work() -> None:
    settings = json.loads(os.environ[WORKER])
    print(json.dumps(measure(Case(**settings.pop("case")), **settings)), flush=True)
    os._exit(0)  # graphs that NCCL is part of are still there, and it would wait for their end


if __name__ == "__main__":
    _work() if WORKER in os.environ else typer.run(main)
