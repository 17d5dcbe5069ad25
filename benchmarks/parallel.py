"""One model on several cards: `python -m benchmarks.tensor_parallel`, on a machine with two GPUs.

Each case is measured in processes of its own, a card each, with random weights. Samples are W1, all in one
call. The limit is that of the matrix products alone of what a card holds, at full batches, with lm_head,
which each card has whole. Without GPUs a tiny shape is measured, only for trying.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Annotated, Any

import typer

WORKER = "FLEXRAY_BENCHMARK_RANK"
"""Environment variable: a worker's settings as JSON."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Copies of an engine, each on so many cards."""

    shape: str
    ranks: int
    copies: int = 1
    quantization: str | None = None


CASES = (
    Case(shape="70b", ranks=2),
    Case(shape="70b", ranks=2, quantization="fp8"),
    Case(shape="8b", ranks=1),
    Case(shape="8b", ranks=2),
    Case(shape="8b", ranks=1, copies=2),
)
TRIAL = (
    Case(shape="tiny", ranks=1),
    Case(shape="tiny", ranks=2),
    Case(shape="tiny", ranks=2, quantization="fp8"),
    Case(shape="tiny", ranks=1, copies=2),
)


def measure(case: Case, rank: int, card: int, port: int, samples: int) -> dict[str, Any]:
    """What a worker does; all ranks of an engine do the same."""
    import torch

    from benchmarks.clock import repeated
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

    on_gpu = torch.cuda.is_available()
    device, group = torch.device("cpu"), None
    if on_gpu:
        device = torch.device("cuda", card)
        torch.cuda.set_device(device)
    if case.ranks > 1:
        talk_on_loopback()
        listener = socket.create_server((LOOPBACK, port)) if rank == 0 else None
        group = join_ranks(rank, case.ranks, connect(port, listener=listener), device)
    part = make_part(case.shape, rank, case.ranks, device)
    model = llama.patch(part, case.quantization, group)  # type: ignore[arg-type]
    if on_gpu:
        made = torch.cuda.max_memory_allocated()
    limit = _limit(model, GPU if on_gpu else CPU)
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
        "made_gib": made / 2**30 if on_gpu else None,
    }


def _limit(model: Any, sizes: Any) -> float:
    """Samples per second if only the products took time, as `benchmarks.limit`."""
    import torch

    from benchmarks.clock import median_seconds
    from benchmarks.work import W1
    from flexray.models.fused import as_rows
    from flexray.models.quantization import Rows, apply_linear

    shape, quantized = model.shape, model.quantization is not None

    def rows(x: torch.Tensor) -> Rows:
        return as_rows(x, quantized=quantized)

    hidden = torch.randn(sizes.gemm_tokens, model.config.hidden_size, device=model.device).to(model.dtype)
    wide = hidden.new_zeros(sizes.gemm_tokens, model.config.intermediate_size).normal_()
    heads = hidden.new_zeros(sizes.gemm_tokens, shape.num_heads * shape.head_dim).normal_()
    inputs = [rows(hidden), rows(heads), rows(hidden), rows(wide)]
    few = [rows(x[: sizes.rows].clone()) for x in (hidden, heads, hidden, wide)]

    @torch.no_grad()
    def products(given: list[Rows]) -> None:
        for layer in model.layers:
            for x, linear in zip(given, (layer.qkv, layer.out, layer.gate_up, layer.down), strict=True):
                apply_linear(x, linear)

    def step() -> None:
        products(few)
        model.model.lm_head(hidden[: sizes.rows])

    prefill = median_seconds(lambda: products(inputs), at_most=sizes.seconds)
    decode = median_seconds(step, at_most=sizes.seconds)
    return 1 / (W1.own_tokens * prefill / sizes.gemm_tokens + W1.new_tokens * decode / sizes.rows)


def main(
    samples: Annotated[int, typer.Option(help="In one call. 0: 512, without GPUs 8.")] = 0,
    shapes: Annotated[str, typer.Option(help="Only cases of these shapes.")] = "70b,8b,tiny",
) -> None:
    """Print a table: samples per second, the share of the limit, and the memory for keys and values."""
    import torch

    from benchmarks.machine import describe_commit, describe_machine

    cards = torch.cuda.device_count()
    chosen = [case for case in (CASES if cards else TRIAL) if case.shape in shapes.split(",")]
    needed = max(case.ranks * case.copies for case in chosen)
    if 0 < cards < needed:
        raise typer.BadParameter(f"needs {needed} GPUs, and torch finds {cards}")
    samples = samples or (512 if cards else 8)
    lines = [
        "| model | cards | samples/s | of the limit | KV slots | GiB for keys and values | GiB when made |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in chosen:
        found = _in_processes(case, samples)
        lines.append(_line(case, found))
        print(lines[-1], file=sys.stderr, flush=True)
    print(f"{describe_machine()}\ncommit {describe_commit()}; {samples} samples of W1 in a call\n")
    print("\n".join(lines))


def _line(case: Case, found: list[dict[str, Any]]) -> str:
    """A row of the table. `found`: of rank 0 of each copy; a card's memory is that of each."""
    rate, limit = sum(f["rate"] for f in found), sum(f["limit"] for f in found)
    cards = f"tensor_parallel {case.ranks}" if case.ranks > 1 else "1"
    if case.copies > 1:
        cards = f"{case.copies} engines of 1"
    made = f"{found[0]['made_gib']:.1f}" if found[0]["made_gib"] else "-"
    return (
        f"| {case.shape} {case.quantization or ''} | {cards} | {rate:.1f} | {rate / limit:.0%} | "
        f"{found[0]['slots']:,} | {found[0]['cache_gib']:.1f} | {made} |"
    )


def _in_processes(case: Case, samples: int) -> list[dict[str, Any]]:
    workers = []
    for copy in range(case.copies):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        for rank in range(case.ranks):
            settings = {"rank": rank, "card": copy * case.ranks + rank, "port": port, "samples": samples}
            told = json.dumps({"case": dataclasses.asdict(case), **settings})
            command = [sys.executable, "-m", "benchmarks.tensor_parallel"]
            workers.append(subprocess.Popen(command, env=os.environ | {WORKER: told}, stdout=subprocess.PIPE))
    try:
        while any(worker.poll() is None for worker in workers):
            if failed := [worker.returncode for worker in workers if worker.returncode]:
                raise SystemExit(f"{case}: a process has ended with {failed[0]}")
            time.sleep(0.2)
    finally:
        for worker in workers:
            worker.kill()
    said = [worker.communicate()[0].decode().strip().splitlines() for worker in workers]
    if failed := [worker.returncode for worker in workers if worker.returncode]:
        raise SystemExit(f"{case}: a process has ended with {failed[0]}")
    return [json.loads(lines[-1]) for lines in said[:: case.ranks]]


def _work() -> None:
    settings = json.loads(os.environ[WORKER])
    print(json.dumps(measure(Case(**settings.pop("case")), **settings)), flush=True)
    os._exit(0)  # graphs that NCCL is part of are still there, and it would wait for their end


if __name__ == "__main__":
    _work() if WORKER in os.environ else typer.run(main)
