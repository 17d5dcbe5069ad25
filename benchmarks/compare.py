"""This checkout's engine in all its modes, beside an older one's: `python -m benchmarks.compare --old OLD`.

OLD is another checkout, such as `git worktree add ../old COMMIT`. Each shape and mode is measured in a
process of its own, with random weights, the works of a mode one after another. The digest is of all generated
tokens: equal digests are equal answers. A start is a process's, to the end of its first call,
less what making the model takes; to see it with the compiler's caches warm, run the same twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

HERE = Path(__file__).resolve().parent.parent
MODES: dict[str, dict[str, Any]] = {
    "deterministic": {},
    "fp8": {"quantization": "fp8"},
    "not deterministic": {"deterministic": False},
    "not deterministic, fp8": {"deterministic": False, "quantization": "fp8"},
}
WORKS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {  # method, change of W1, samples a call
    "attention": ({}, {}, 2048),
    "12 to 36 tokens": ({}, {"spread": 12}, 2048),
    "context of 4096": ({}, {"context": 4096}, 2048),
    "per_prompt": ({"kind": "per_prompt"}, {}, 2048),
    "avg": ({"kind": "avg"}, {}, 2048),
    "full_prompt/continuous": ({"layout": "full_prompt", "positions": "continuous"}, {}, 2048),
    "calls of 128": ({}, {}, 128),
    "calls of 32": ({}, {}, 32),
    "calls of 8": ({}, {}, 8),
    "calls of 1": ({}, {}, 1),
}
LIMIT = "matrix products alone"
BEGAN = "FLEXRAY_BENCHMARK_BEGAN"
"""Environment variable: when the process was started, seconds since 1970."""


def make_engine(model: Any, mode: str, method: dict[str, Any]) -> Any:
    """An engine of this process, for W1 without an end, in a mode and by a method."""
    from benchmarks.models import NoStops
    from benchmarks.work import W1
    from flexray.config import EngineConfig, GenerationConfig, MethodConfig
    from flexray.engine.engine import Engine

    settings = dict(MODES[mode])
    quantization = settings.pop("quantization", None)
    known = EngineConfig.model_fields
    config = EngineConfig(strict=True, **{key: value for key, value in settings.items() if key in known})
    generation = GenerationConfig(max_new_tokens=W1.new_tokens, stop_at_newline=False)
    more = () if quantization is None else (quantization,)
    return Engine(model, NoStops(), [MethodConfig(**method)], generation, config, *more)  # type: ignore[arg-type]


def measure(shape: str, mode: str, works: str) -> dict[str, dict[str, Any]]:
    """Of each work: samples per second by the engine that this process imports, and more."""
    import torch

    from benchmarks.models import free_memory, make_model
    from benchmarks.work import CPU, GPU, W1
    from flexray.engine.engine import Engine  # noqa: F401  counts as a part of the start

    on_gpu = torch.cuda.is_available()
    imported = time.time()
    model = make_model(shape, "cuda" if on_gpu else "cpu")
    began = float(os.environ[BEGAN]) + time.time() - imported  # as if the weights had been there
    found: dict[str, dict[str, Any]] = {}
    for name in works.split(","):
        if name == LIMIT:  # by itself: an engine sets how the products of its process round
            from benchmarks.limit import measure_limit

            assert works == LIMIT
            return {LIMIT: {"rate": measure_limit(model, W1, GPU if on_gpu else CPU).samples_per_second}}
        method, change, samples = WORKS[name]
        engine = make_engine(model, mode, method)
        work = dataclasses.replace(W1, **change)
        calls = [work.prompts(samples, model.config.vocab_size, seed) for seed in range(20)]
        found[name] = _measure(engine, calls if samples < 128 else calls[:5], samples)
        if len(found) == 1:
            found[name]["start"] = found[name].pop("first_answer") - began
        del engine
        free_memory()
    return found


def _measure(engine: Any, calls: list[Any], samples: int) -> dict[str, Any]:
    """Of one work; the first two calls are the warm-up."""
    from benchmarks.clock import seconds

    said: list[Any] = [engine.generate(calls[0])]
    first_answer = time.time()
    taken = [seconds(lambda prompts=prompts: said.append(engine.generate(prompts))) for prompts in calls[1:]]  # type: ignore[misc]
    tokens = [g.token_ids for call in said for row in call for answers in row for g in answers]
    digest = hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:12]
    rate = samples / statistics.median(taken[1:])
    return {"rate": rate, "digest": digest, "first_answer": first_answer}


def main(
    old: Annotated[Path | None, typer.Option(help="A checkout of the older code.")] = None,
    shapes: Annotated[str, typer.Option(help="Of benchmarks.work.SHAPES.")] = "3b,8b",
    modes: Annotated[str, typer.Option(help=f"Of {', '.join(MODES)}; split by ;")] = "deterministic",
    works: Annotated[str, typer.Option(help=f"Of {LIMIT}, {', '.join(WORKS)}.")] = f"{LIMIT},attention",
) -> None:
    """Print a table: samples per second of the older code, of this one, their ratio, and whether answers are
    equal."""
    from benchmarks.machine import describe_commit, describe_machine

    print(f"{describe_machine()}\nnew: {describe_commit()}; old: {old.resolve().name if old else 'none'}")
    print("| shape | mode | work | old | new | new/old | answers | start s |")
    print("|---|---|---|---|---|---|---|---|")
    for shape in shapes.split(","):
        for mode in modes.split(";"):
            names = [name for name in works.split(",") if name != LIMIT]
            before = in_process(old, shape, mode, ",".join(names)) if old else {}
            found = in_process(HERE, shape, mode, LIMIT) if LIMIT in works.split(",") else {}
            for name, now in (found | in_process(HERE, shape, mode, ",".join(names))).items():
                rate, then = now["rate"], before.get(name, {})
                cells = [
                    shape,
                    mode,
                    name,
                    "",
                    f"{rate:.1f}",
                    "",
                    "",
                    f"{now['start']:.1f}" if "start" in now else "",
                ]
                if then:
                    same = "equal" if then.get("digest") == now.get("digest") else "differ"
                    cells[3], cells[5:7] = f"{then['rate']:.1f}", [f"{rate / then['rate']:.3f}", same]
                print("| " + " | ".join(cells) + " |", flush=True)


def in_process(tree: Path, shape: str, mode: str, works: str) -> dict[str, dict[str, Any]]:
    """What `measure` finds in a process of its own, which imports from `tree`."""
    if not works:
        return {}
    # the older checkout need not have this module: it is read from here, and imports from there
    code = "import sys; sys.path.insert(0, sys.argv[1]); __file__ = sys.argv[2]; "
    code += (
        "exec(compile(open(__file__).read(), __file__, 'exec')); print(json.dumps(measure(*sys.argv[3:])))"
    )
    command = [sys.executable, "-c", code, str(tree.resolve()), __file__, shape, mode, works]
    environment = os.environ | {BEGAN: str(time.time())}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tree, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{tree}: {done.stderr[-2000:]}")
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__" and sys.argv[0] != "-c":
    typer.run(main)
