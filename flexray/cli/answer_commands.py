"""The commands that answer a data set: run, retry-errors, paraphrase, confidence."""

from __future__ import annotations

from typing import Annotated

import typer

from flexray.cli.app import AllowCodeChangeOption, ConfigOption, SetOption, app, log, reports_user_errors
from flexray.storage import redact

ToOption = Annotated[
    str, typer.Option("--to", help="Data set to write: FILE.jsonl or FILE.parquet, or a URL.")
]
FreshOption = Annotated[bool, typer.Option(help="Discard the output folder's earlier run first.")]


@app.command()
@reports_user_errors
def run(
    config: ConfigOption,
    set_: SetOption = [],  # noqa: B006  typer reads the default, nobody changes it
    fresh: FreshOption = False,
    allow_code_change: AllowCodeChangeOption = False,
) -> None:
    """Answer a data set; resumes where an earlier start of the same run ended."""
    from flexray.config import load_config

    checked = load_config(config, set_)
    from flexray.report import Shard, print_summary
    from flexray.report.progress_bar import show_progress
    from flexray.runs.run import run as run_job

    with show_progress(log) as progress:
        result = run_job(checked, fresh=fresh, allow_code_change=allow_code_change, progress=progress)
    shards = [Shard.of(manifest) for manifest in result.manifests.values()]
    # the wall time is that of this start's rows only
    seconds = None if result.rows_before else result.seconds
    names = [method.name for method in checked.methods]
    print_summary(shards, methods=names, output=redact(checked.output), seconds=seconds)
    if over := result.over_limits(checked.limits):
        typer.echo(f"error: {over}", err=True)
        raise typer.Exit(1)


@app.command("retry-errors")
@reports_user_errors
def retry_errors(
    config: ConfigOption,
    set_: SetOption = [],  # noqa: B006
    allow_code_change: AllowCodeChangeOption = False,
) -> None:
    """Answer the error rows of a run again; good rows, and shards not committed yet, stay as they are."""
    from flexray.config import load_config

    checked = load_config(config, set_)
    from flexray.report.progress_bar import show_progress
    from flexray.runs.retry_errors import retry_errors as retry

    with show_progress(log) as progress:
        result = retry(checked, allow_code_change=allow_code_change, progress=progress)
    typer.echo(result.summary_line())


@app.command()
@reports_user_errors
def paraphrase(
    config: ConfigOption,
    to: ToOption,
    set_: SetOption = [],  # noqa: B006
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
