"""The commands that have the model write a data set."""

from __future__ import annotations

from typing import Annotated

import typer

from flexray.cli.app import ConfigOption, SetOption, app, reports_user_errors
from flexray.cli.generate import run

ToOption = Annotated[
    str, typer.Option("--to", help="Data set to write: FILE.jsonl or FILE.parquet, or a URL.")
]
FreshOption = Annotated[bool, typer.Option(help="Discard the output folder's earlier run first.")]


@app.command()
@reports_user_errors
def paraphrase(
    config: ConfigOption,
    to: ToOption,
    set_: SetOption = [],  # noqa: B006  typer reads the default, nobody changes it
    keep: Annotated[int, typer.Option(min=1, help="Paraphrases of a question at most.")] = 5,
    fresh: FreshOption = False,
) -> None:
    """Sample paraphrases of each question and write them as a data set; resumes as `run` does."""
    from flexray.config import load_config
    from flexray.runs.export import check_export, write_paraphrases

    checked = load_config(config, set_)
    check_export(checked, "sampled", to)
    run(config, set_, fresh)
    from flexray.sink import OutputFolder

    typer.echo(write_paraphrases(OutputFolder(checked.output), to, keep=keep).summary_line())


@app.command()
@reports_user_errors
def confidence(
    config: ConfigOption,
    to: ToOption,
    set_: SetOption = [],  # noqa: B006
    fresh: FreshOption = False,
) -> None:
    """Find how sure the model is of each paraphrase and write it as a data set; resumes as `run` does."""
    from flexray.config import load_config
    from flexray.runs.export import check_export, write_confidences

    checked = load_config(config, set_)
    check_export(checked, "confidence", to)
    run(config, set_, fresh)
    from flexray.sink import OutputFolder

    typer.echo(write_confidences(OutputFolder(checked.output), to).summary_line())
