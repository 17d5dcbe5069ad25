"""The commands for a cluster: submit, nightly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from flexray.cli.app import AllowCodeChangeOption, ConfigOption, SetOption, app, log, reports_user_errors
from flexray.console.terminal import printable
from flexray.storage import redact


@app.command()
@reports_user_errors
def submit(
    config: ConfigOption,
    address: Annotated[str, typer.Option(help="The dashboard of the cluster's head: http://HEAD:8265.")],
    set_: SetOption = [],  # noqa: B006
    job: Annotated[
        Literal["generate", "nightly", "evaluate"],
        typer.Option(help="Which of jobs/. For nightly each --config is a recipe, or a folder of them."),
    ] = "generate",
    id_: Annotated[
        str | None, typer.Option("--id", help="Of the job; Ray takes none twice. Else one of the day.")
    ] = None,
    runtime_env: Annotated[
        Path, typer.Option(help="YAML file: what the nodes install for the job, and its environment.")
    ] = Path("runtime_env.yaml"),
    wait: Annotated[bool, typer.Option(help="Follow the log, and exit with the job's exit code.")] = True,
) -> None:
    """Submit this folder, the project, as a job to a running Ray cluster."""
    from flexray.config import load_config

    if job == "nightly":
        from flexray.runs.nightly import find_recipes

        configs = [load_config(recipe, set_) for recipe in find_recipes(config)]
    else:
        configs = [load_config(config, set_)]
    from flexray.runs.submit import make_submission
    from flexray.runs.submit import submit as submit_job

    submission = make_submission(
        job,
        config,
        configs,
        overrides=set_,
        project=Path.cwd(),
        runtime_env=runtime_env,
        submission_id=id_,
    )
    raise typer.Exit(submit_job(submission, address, wait=wait, log=log))


@app.command()
@reports_user_errors
def nightly(
    recipes: Annotated[list[str], typer.Argument(help="YAML files, paths or URLs, and folders of them.")],
    set_: SetOption = [],  # noqa: B006
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Compute error rows of complete batches again.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read back the rows of all batches, not only of today's.")
    ] = False,
    allow_code_change: AllowCodeChangeOption = False,
) -> None:
    """Answer what is new or unfinished of each recipe, file by file; safe to start twice."""
    from flexray.runs.nightly import nightly as do_nightly

    def complain(line: str) -> None:
        typer.echo(f"error: {printable(redact(line))}", err=True)

    night = do_nightly(
        recipes,
        set_,
        retry=retry_errors,
        verify_all=verify,
        allow_code_change=allow_code_change,
        log=log,
        complain=complain,
    )
    raise typer.Exit(night.exit_code)
