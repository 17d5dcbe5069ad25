"""A bare engine over a job's rows, in a process of its own: no Ray, no plan, no sink."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CODE = "import sys; from benchmarks.job_bare import measure; measure(*sys.argv[1:])"
CALLS = 3


def bare_engine(recipe: Path, at_once: int) -> dict[str, Any]:
    """What `measure` finds. Raises SystemExit if it fails."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(recipe), str(at_once)], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(f"the bare engine of {recipe} has ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(recipe: str, at_once: str) -> None:
    """Load a recipe's model, answer its first questions, so many in a call, and print as JSON: rows a second,
    the median of CALLS calls after two that compile; and seconds that loading took."""
    from benchmarks.clock import repeated
    from flexray.config import load_config
    from flexray.data import scan, to_questions
    from flexray.engine.parallel_engine import ParallelModel
    from flexray.pipeline.prepare import prompt_builder

    config, rows = load_config([recipe], [f"data.limit={at_once}"]), int(at_once)
    builder = prompt_builder(config)
    data = config.data
    prompts = [builder.build(q) for q in to_questions(scan(data), dataset=data.name, split=data.split)]
    assert len(prompts) == rows
    start = time.perf_counter()
    loaded = ParallelModel(config.model, config.engine.tensor_parallel)
    loading = time.perf_counter() - start
    engine = loaded.make_engine(config.methods, config.generation, config.engine)
    for count in (rows // 4, rows):
        engine.generate(prompts[:count])
    taken = repeated(lambda: engine.generate(prompts), at_most=float("inf"), repeats=CALLS)
    print(
        json.dumps({"rows_per_second": rows / statistics.median(taken), "load_seconds": loading}), flush=True
    )
    os._exit(0)  # graphs that NCCL is part of are still there, and it would wait for their end
