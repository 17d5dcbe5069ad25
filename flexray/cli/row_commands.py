"""The commands about one row: show-mask, explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flexray.cli.app import ConfigOption, SetOption, app, log, reports_user_errors

RowOption = Annotated[str, typer.Option(help="A row of the data set: its number, or its row_id.")]
MethodOption = Annotated[str | None, typer.Option(help="A method of the recipe: its name, or its number.")]


@app.command("show-mask")
@reports_user_errors
def show_mask(
    config: ConfigOption,
    set_: SetOption = [],  # noqa: B006
    row: RowOption = "1",
    method: MethodOption = None,
    png: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("out/mask.png"),
    html: Annotated[Path | None, typer.Option(help="Write a page that tells of each pair.")] = None,
    generated: Annotated[int, typer.Option(min=0, help="Answer tokens to add behind the answer prefix.")] = 2,
) -> None:
    """Draw who sees whom in one row's prompt: in the terminal, as PNG and as HTML."""
    from flexray.config import load_config

    checked = load_config(config, set_)
    from flexray.report import show_mask as draw_mask

    draw_mask(checked, row=row, method=method, png=png, html=html, generated=generated)


@app.command()
@reports_user_errors
def explain(
    config: ConfigOption,
    row: RowOption,
    set_: SetOption = [],  # noqa: B006
    method: MethodOption = None,
    top: Annotated[int, typer.Option(min=1, help="Tokens shown for each step.")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything there.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page there, with attention by layer.")] = None,
) -> None:
    """Answer one row again on this machine, and show what each token was chosen from and looked at."""
    from flexray.config import load_config

    checked = load_config(config, set_)
    from flexray.report.explain import explain as explain_row
    from flexray.report.explanation_html import explanation_page
    from flexray.report.explanation_text import print_explanation
    from flexray.report.output_files import write_file

    explanation = explain_row(checked, row=row, method=method, top=top)
    print_explanation(explanation)
    if json_file is not None:
        write_file(json_file, explanation.to_json(), "--json")
        log(f"json: {json_file}")
    if html is not None:
        write_file(html, explanation_page(explanation), "--html")
        log(f"page: {html}")
