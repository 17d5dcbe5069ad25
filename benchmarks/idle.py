"""How long the GPU waits for the host in a call of the engine: `python -m benchmarks.idle --shape 1b`.

By torch's profiler, which tells when each kernel and each copy began and ended. Times between two of them
that are shorter than `LAUNCH_SECONDS` lie within a CUDA graph, in which the host has no part; what is longer,
and what lies before the first and behind the last one, is the host's.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch.profiler import ProfilerActivity, profile

from benchmarks.clock import seconds
from benchmarks.compare import MODES, make_engine
from benchmarks.machine import describe_commit, describe_machine
from benchmarks.models import free_memory, make_model
from benchmarks.work import SHAPES, W1

LAUNCH_SECONDS = 20e-6
ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")


@dataclass(frozen=True, slots=True)
class Busy:
    """Seconds of one call."""

    at_work: float
    between_kernels: float
    waiting: float  # for the host, between the first kernel and the last
    span: float  # from the first kernel's begin to the last one's end


def busy(intervals: Iterable[tuple[float, float]]) -> Busy:
    """From when each kernel began and ended, in seconds; they may overlap."""
    ordered = sorted(intervals)
    begin = reached = ordered[0][0]
    between = waiting = 0.0
    for start, end in ordered:
        gap = max(0.0, start - reached)
        if gap < LAUNCH_SECONDS:
            between += gap
        else:
            waiting += gap
        reached = max(reached, end)
    span = reached - begin
    return Busy(span - between - waiting, between, waiting, span)


def main(
    shape: Annotated[str, typer.Option(help=f"Of {', '.join(SHAPES)}, by commas.")] = "3b",
    mode: Annotated[str, typer.Option(help=f"Of {', '.join(MODES)}.")] = "deterministic",
    samples: Annotated[int, typer.Option(min=1, help="Of W1, in a call.")] = 2048,
) -> None:
    """Print a table."""
    if not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU, and a CPU does not wait for itself")
    print(f"{describe_machine()}\ncommit {describe_commit()}, {mode}, calls of {samples}, ms")
    print("| shape | a call | with the profiler | at work | between kernels | waiting | before and behind |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in shape.split(","):
        parts = _measure(name, mode, samples)
        print("| " + " | ".join([name, *(f"{part * 1e3:.1f}" for part in parts)]) + " |", flush=True)
        free_memory()


def _measure(shape: str, mode: str, samples: int) -> tuple[float, ...]:
    """Seconds, in the order of the columns: of the fourth call, and with the profiler of the fifth."""
    model = make_model(shape, "cuda")
    engine = make_engine(model, mode, {})
    calls = [W1.prompts(samples, model.config.vocab_size, seed) for seed in range(5)]
    run = [partial(engine.generate, prompts) for prompts in calls]
    alone = [seconds(call) for call in run[:-1]][-1]
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        whole = seconds(run[-1])
    found = busy(_intervals(profiled))
    return alone, whole, found.at_work, found.between_kernels, found.waiting, whole - found.span


def _intervals(profiled: profile) -> list[tuple[float, float]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    return [
        (event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6)
        for event in events
        if event.get("ph") == "X" and event.get("cat") in ON_DEVICE
    ]


if __name__ == "__main__":
    typer.run(main)
