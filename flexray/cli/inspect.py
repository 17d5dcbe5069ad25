"""The commands that show what a model is given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flexray.cli.app import ConfigOption, SetOption, app, reports_user_errors


@app.command("show-mask")
@reports_user_errors
def show_mask(
    config: ConfigOption,
    set_: SetOption = [],  # noqa: B006
    row: Annotated[int, typer.Option(min=1, help="Which row of the data set.")] = 1,
    png: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("out/mask.png"),
    generated: Annotated[int, typer.Option(min=0, help="Answer tokens to add behind the cue.")] = 2,
) -> None:
    """Draw who sees whom in one row's prompt: in the terminal and as PNG."""
    from flexray.config import load_config

    checked = load_config(config, set_)
    from flexray.report import show_row_mask

    show_row_mask(checked, row=row, png=png, generated=generated)
