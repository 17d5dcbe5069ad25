"""The command that says what a run would do."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from flexray.cli.app import ConfigOption, SetOption, app, reports_user_errors


@app.command()
@reports_user_errors
def plan(
    config: ConfigOption,
    set_: SetOption = [],  # noqa: B006
    sample: Annotated[int, typer.Option(min=1, help="Rows to make prompts of.")] = 256,
    gpu: Annotated[str | None, typer.Option(help="Plan for this GPU, such as H100 or A100-40GB.")] = None,
    gpu_memory: Annotated[
        float | None, typer.Option("--gpu-memory", min=1, help="Plan for a GPU of so many GiB.")
    ] = None,
    like: Annotated[
        str | None, typer.Option(help="Output folder of another run, to take its speed from.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say what a run would do and need, and what stands in its way; exit code 2 if it would not start.

    Reads the data and a sample of prompts. Holds no GPU, loads no weights, writes nothing.
    """
    from flexray.config import load_config

    checked = load_config(config, set_)
    from flexray.preflight.plan import make_plan, print_plan

    made = make_plan(checked, sample_rows=sample, gpu=gpu, gpu_memory=gpu_memory, like=like)
    if as_json:
        typer.echo(json.dumps(made.to_dict(), indent=2))
    else:
        print_plan(made)
    if not made.ready:
        raise typer.Exit(2)
