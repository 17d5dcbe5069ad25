"""The command that has another one run on a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flexray.cli.app import app, command, log
from flexray.errors import ConfigError

if TYPE_CHECKING:
    from flexray.runs.submission import JobCommand

NOT_SUBMITTED = ("init", "submit")
RECIPES = ("recipe", "config", "recipes")
OUTPUTS = ("output", "outputs", "folders", "folder")
PATHS = ("html", "json_file", "like", "png", "to")
"""Parameters of commands that name a file or a folder which the job reads or writes."""


@command(passes_on=True)
def submit(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE [OPTIONS]", help="What the job's command takes: recipes or OUT, and its options."
        ),
    ] = [],
    job: Annotated[str, typer.Option(help="The command: run, nightly, retry-errors, evaluate, ..")] = "run",
    address: Annotated[
        str | None,
        typer.Option(
            help="The dashboard of the cluster's head: http://HEAD:8265. "
            "Else that of RAY_API_SERVER_ADDRESS or RAY_ADDRESS."
        ),
    ] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="Of the job; Ray takes none twice. Else one of the day.")
    ] = None,
    install: Annotated[
        bool,
        typer.Option(help="Have each node install what flexray needs, at the versions that are here."),
    ] = True,
    runtime_env: Annotated[
        Path | None,
        typer.Option(help="YAML file: what the nodes install instead, and the job's environment."),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Follow the log, and exit with the job's exit code.")] = True,
    stop_job: Annotated[
        bool, typer.Option("--stop-job", help="SIGTERM or Ctrl-C, while it is followed, stops the job, too.")
    ] = False,
) -> None:
    """Have a command run as a job on a running Ray cluster, by this flexray, with this recipe."""
    taken = take_apart(job, words)
    from flexray.runs.submission import make_submission
    from flexray.runs.submit import submit as submit_job

    submission = make_submission(taken, runtime_env=runtime_env, install=install, submission_id=id_)
    raise typer.Exit(submit_job(submission, address, wait=wait, stop_job=stop_job, log=log))


def take_apart(name: str, words: Sequence[str]) -> JobCommand:
    """The command line of a command, as that command reads it.

    Raises:
        ConfigError: there is no such command, or it names no recipe.
        click.UsageError: the command does not take these words.
    """
    from flexray.runs.submission import JobCommand

    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    known = [known for known in commands if known not in NOT_SUBMITTED]
    if name not in known:
        raise ConfigError(f"--job {name}: no command that can be submitted; these can: {', '.join(known)}.")
    context = commands[name].make_context(name, [*words])
    values = context.params
    recipes = [path for key in RECIPES for path in values.get(key, ())]
    of_recipes = any(key in values for key in RECIPES)
    if not recipes and of_recipes and name != "doctor":
        raise ConfigError(f"no recipe is named. Give a YAML file: flexray submit --job {name} my.yaml")
    outputs = [path for key in OUTPUTS if key in values for path in _listed(values[key])]
    paths = {f"--{key.removesuffix('_file')}": str(values[key]) for key in PATHS if values.get(key)}
    if name == "report" and "--html" not in paths and "://" in outputs[0]:
        raise ConfigError("--html: name a file that the cluster's head writes, on storage that you see, too.")
    return JobCommand(
        name=name,
        recipes=tuple(recipes),
        overrides=tuple(values.get("set_", ())) if of_recipes else (),
        outputs=tuple(outputs),
        plugins=tuple(values.get("plugin", ())),
        options=tuple(_options(context, {*RECIPES, *OUTPUTS, "plugin", *["set_"] * of_recipes})),
        paths=paths,
    )


def _options(context: Any, changed: set[str]) -> Iterator[str]:
    """The options that were given, but for those that are changed on the way."""
    for parameter in context.command.params:
        name, value = parameter.name, context.params[parameter.name]
        if name in changed or context.get_parameter_source(name).name != "COMMANDLINE":
            continue
        if isinstance(value, bool):
            yield (parameter.opts if value else parameter.secondary_opts)[0]
        else:
            yield from (f"{parameter.opts[0]}={part}" for part in _listed(value))


def _listed(value: Any) -> list[Any]:
    return [*value] if isinstance(value, list | tuple) else [value]
