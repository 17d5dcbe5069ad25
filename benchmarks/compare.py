"""This checkout's engine beside an older one's, on the same machine, in turn: `python -m benchmarks.compare
OLD`.

OLD is another checkout, such as `git worktree add ../old COMMIT`. Each figure is taken in a process of its
own, the two checkouts in turn, with random weights. The digest is of all generated tokens: equal digests
are equal answers.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

HERE = Path(__file__).resolve().parent.parent
WORKS = {  # method, samples a call
    "attention": ({}, 2048),
    "per_prompt": ({"kind": "per_prompt"}, 1024),
    "avg": ({"kind": "avg"}, 1024),
    "calls of 32": ({}, 32),
    "calls of 1": ({}, 1),
}


def measure(shape: str, work: str) -> dict[str, Any]:
    """Samples per second of W1 by the engine that this process imports."""
    import torch

    from benchmarks.clock import seconds
    from benchmarks.models import NoStops, make_model
    from benchmarks.work import W1
    from flexray.config import EngineConfig, GenerationConfig, MethodConfig
    from flexray.engine.engine import Engine

    method, samples = WORKS[work]
    model = make_model(shape, "cuda" if torch.cuda.is_available() else "cpu")
    generation = GenerationConfig(max_new_tokens=W1.new_tokens, stop_at_newline=False)
    engine = Engine(model, NoStops(), [MethodConfig(**method)], generation, EngineConfig(strict=True))  # type: ignore[arg-type]
    calls = 5 if samples > 100 else 20
    prompts = [W1.prompts(samples, model.config.vocab_size, seed) for seed in range(calls)]
    said = [engine.generate(asked) for asked in prompts[:2]]  # warm-up
    taken = [seconds(lambda p=p: said.append(engine.generate(p))) for p in prompts[2:]]
    tokens = [g.token_ids for call in said for row in call for answers in row for g in answers]
    digest = hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:12]
    return {"rate": samples / statistics.median(taken), "digest": digest}


def main(
    old: Annotated[Path, typer.Argument(help="A checkout of the older code.")],
    shapes: Annotated[str, typer.Option(help="Of benchmarks.work.SHAPES.")] = "3b,8b",
    works: Annotated[str, typer.Option(help=f"Of {', '.join(WORKS)}.")] = ",".join(WORKS),
) -> None:
    """Print a table: the older code's samples per second, this one's, their ratio, and whether answers are
    equal."""
    from benchmarks.machine import describe_commit, describe_machine

    print(f"{describe_machine()}\nnew: {describe_commit()}; old: {old.resolve().name}")
    print("| shape | work | old | new | new/old | answers |\n|---|---|---|---|---|---|")
    for shape in shapes.split(","):
        for work in works.split(","):
            found = {name: _in_process(tree, shape, work) for name, tree in (("old", old), ("new", HERE))}
            rates = {name: one["rate"] for name, one in found.items()}
            same = "equal" if found["old"]["digest"] == found["new"]["digest"] else "differ"
            ratio = rates["new"] / rates["old"]
            print(
                f"| {shape} | {work} | {rates['old']:.1f} | {rates['new']:.1f} | {ratio:.3f} | {same} |",
                flush=True,
            )


def _in_process(tree: Path, shape: str, work: str) -> dict[str, Any]:
    # the older checkout need not have this module: it is read from here, and imports from there
    code = "import sys; sys.path.insert(0, sys.argv[1]); __file__ = sys.argv[2]; "
    code += (
        "exec(compile(open(__file__).read(), __file__, 'exec')); print(json.dumps(measure(*sys.argv[3:])))"
    )
    command = [sys.executable, "-c", code, str(tree.resolve()), __file__, shape, work]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tree, check=False)
    if done.returncode:
        raise SystemExit(f"{tree}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__" and sys.argv[0] != "-c":
    typer.run(main)
