"""Draws of paraphrases on one prefill, against a run for each draw: `python -m benchmarks.draws`.

20 paraphrases of 24 random tokens a question, 8 draws of 5; otherwise W1. Then each other method on W1.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Annotated

import torch
import typer

from benchmarks.machine import describe_commit, describe_machine
from benchmarks.models import NoStops, make_model
from benchmarks.work import W1
from flexray.config import EngineConfig, GenerationConfig, MethodConfig
from flexray.engine.engine import Engine
from flexray.methods.draws import subsets_of
from flexray.prompts.prompt import Prompt

DRAWS, SIZE, OF = 8, 5, 20
OTHERS = ("attention", "concat", "origin", "per_prompt", "avg", "max", "mean_prob", "nbce")
REPEATS = 3


def main(
    shape: Annotated[str, typer.Option()] = "3b",
    samples: Annotated[int, typer.Option(help="Questions a call.")] = 512,
) -> None:
    """Print questions per second of each way, by the median of three calls."""
    model = make_model(shape, "cuda" if torch.cuda.is_available() else "cpu")
    work = dataclasses.replace(W1, paraphrases=OF)
    prompts = [
        dataclasses.replace(prompt, row_id=f"w/test/{i}")
        for i, prompt in enumerate(work.prompts(samples, model.config.vocab_size, seed=0))
    ]
    together = seconds(model, MethodConfig(kind="draws", draws=DRAWS, size=SIZE), [prompts])
    runs = [[of_draw(prompt, draw) for prompt in prompts] for draw in range(DRAWS)]
    one_by_one = seconds(model, MethodConfig(), runs)
    print(f"commit {describe_commit()}; {describe_machine()}")
    print(f"{DRAWS} draws of {SIZE} out of {OF}, {samples} questions, {shape}")
    print(f"  on one prefill  {samples / together:8.1f} questions/s")
    print(f"  a run for each  {samples / one_by_one:8.1f} questions/s")
    print(f"  ratio           {one_by_one / together:8.2f}")
    prompts = W1.prompts(4 * samples, model.config.vocab_size, seed=0)
    first = None
    for kind in OTHERS:
        rate = len(prompts) / seconds(model, MethodConfig(kind=kind), [prompts])
        first = first or rate
        print(f"  {kind:<15} {rate:8.1f} questions/s, {rate / first:.2f} of {OTHERS[0]}")


def of_draw(prompt: Prompt, draw: int) -> Prompt:
    """The prompt with the paraphrases of one draw."""
    subset = subsets_of(prompt.row_id, len(prompt.segments), DRAWS, SIZE, 0)[draw]
    return dataclasses.replace(prompt, segments=tuple(prompt.segments[i] for i in subset))


def seconds(model: object, method: MethodConfig, calls: list[list[Prompt]]) -> float:
    """The time of some calls of an engine, one after the other; compiling is outside."""
    generation = GenerationConfig(max_new_tokens=W1.new_tokens, stop_at_newline=False)
    engine = Engine(model, NoStops(), [method], generation, EngineConfig(strict=True))  # type: ignore[arg-type]
    found = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        for prompts in calls:
            engine.generate(prompts)
        found.append(time.perf_counter() - start)
    engine.reset()
    return statistics.median(found[1:])


if __name__ == "__main__":
    typer.run(main)
