"""What paraphrases that begin alike save on real text.

    python -m benchmarks.shared_prefixes write prompts.json RECIPE.. --set KEY=VALUE  # has a tokenizer
    python -m benchmarks.shared_prefixes measure prompts.json  # on a GPU

The model has random weights in the shape of Llama-3.2-3B; what its answers are does not matter for the time.
"""

from __future__ import annotations

import contextlib
import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer()


@app.command()
def write(
    file: Path,
    recipes: list[str],
    set_: Annotated[list[str], typer.Option("--set", help="As of flexray run.")] = [],  # noqa: B006
    samples: Annotated[int, typer.Option(help="Questions at most.")] = 2048,
) -> None:
    """Write the prompts of a recipe's questions."""
    from flexray.config import load_config
    from flexray.data import scan, to_questions
    from flexray.errors import RowFault
    from flexray.pipeline.prepare import prompt_builder

    config = load_config(recipes, ["output=out/prompts", *set_])
    builder = prompt_builder(config)
    prompts = []
    for question in to_questions(scan(config.data), dataset=config.data.name, split=config.data.split):
        with contextlib.suppress(RowFault):
            prompts += [] if question.error else [asdict(builder.build(question))]
    file.write_text(json.dumps(prompts[:samples]))
    print(f"{len(prompts[:samples])} prompts in {file}")
    for share in (False, True):
        tokens = own_tokens(prompts[:samples], share_prefixes=share)
        print(f"share_prefixes {share}: {tokens:.1f} own tokens each")


def own_tokens(trees: list[dict[str, Any]], *, share_prefixes: bool) -> float:
    """What is prefilled for a prompt beside the context, on average."""
    from flexray.config import MethodConfig
    from flexray.engine.request import Request, group_by_prefix
    from flexray.methods import make_methods
    from flexray.prompts.prompt import Prompt

    (group,) = group_by_prefix(make_methods([MethodConfig()]), share_prefixes=share_prefixes)
    requests = [Request(i, Prompt(**tree), group, 1) for i, tree in enumerate(trees)]
    return statistics.mean(request.packed.num_tokens for request in requests)


@app.command()
def measure(file: Path, shape: str = "3b") -> None:
    """Samples per second with and without shared prefixes."""
    import torch

    from benchmarks.clock import seconds
    from benchmarks.machine import describe_commit, describe_machine
    from benchmarks.models import NoStops, free_memory, make_model
    from flexray.config import EngineConfig, GenerationConfig, MethodConfig
    from flexray.engine.engine import Engine
    from flexray.prompts.prompt import Prompt

    def tuples(value: Any) -> Any:
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    trees = json.loads(file.read_text())
    prompts = [Prompt(**{key: tuples(value) for key, value in tree.items()}) for tree in trees]
    print(f"{describe_machine()}\n{describe_commit()}; {len(prompts)} prompts of {file.name}")
    model = make_model(shape, "cuda" if torch.cuda.is_available() else "cpu")
    rates = []
    for share in (False, True):
        config = EngineConfig(strict=True, share_prefixes=share)
        generation = GenerationConfig(max_new_tokens=16, stop_at_newline=False)
        engine = Engine(model, NoStops(), [MethodConfig()], generation, config)  # type: ignore[arg-type]
        taken = [seconds(lambda engine=engine: engine.generate(prompts)) for _ in range(5)]  # type: ignore[misc]
        rates.append(len(prompts) / statistics.median(taken[2:]))
        stats = engine.stats.to_dict()
        tokens = stats["prefill_tokens"] / 5 / len(prompts)
        print(f"share_prefixes {share}: {rates[-1]:.1f} samples/s, {tokens:.1f} tokens prefilled for each")
        del engine
        free_memory()
    print(f"ratio {rates[1] / rates[0]:.2f}")


if __name__ == "__main__":
    app()
