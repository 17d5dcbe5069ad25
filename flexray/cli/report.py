"""The command that writes a page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flexray.cli.app import OutputArgument, app, log, reports_user_errors


@app.command()
@reports_user_errors
def report(
    output: OutputArgument,
    compare: Annotated[str | None, typer.Option(help="Output folder or URL of an earlier run.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Where the page goes; by default OUT-report.html, beside OUT.")
    ] = None,
) -> None:
    """Write one HTML file about a run, finished or not: accuracy, speed, fallbacks, error rows."""
    from flexray.report.page import default_page, write_page

    page = html or default_page(output)
    write_page(output, page, earlier=compare)
    log(f"report: {page}")
