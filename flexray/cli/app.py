"""The application, and what its commands share."""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import flexray
from flexray.config import RunConfig, load_config
from flexray.console.log import log_mode, start_logging
from flexray.console.signals import stoppable
from flexray.console.terminal import printable
from flexray.errors import ConfigError, UserError
from flexray.storage import redact

Command = Callable[..., None]
PACKAGE = Path(flexray.__file__).parent

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeArgument = Annotated[
    list[str],
    typer.Argument(metavar="RECIPE", help="YAML file, path or URL; of several a later one wins."),
]

ConfigOption = Annotated[
    list[str], typer.Option("--config", "-c", help="The same as an option; repeatable, behind RECIPE.")
]
OutputArgument = Annotated[str, typer.Argument(help="Output folder or URL of a run.")]
AllOption = Annotated[
    bool,
    typer.Option("--all", help="Also methods and rows that the last recipe of the folder does not name."),
]
SetOption = Annotated[
    list[str], typer.Option("--set", help="section.key=value, overrides the file; repeatable.")
]
AllowCodeChangeOption = Annotated[
    bool, typer.Option("--allow-code-change", help="Go on with a run of another values version.")
]
DownloadOption = Annotated[
    bool,
    typer.Option(
        "--download", help="First bring the model and data set that are named from the Hugging Face hub."
    ),
]


def named(recipe: Sequence[str], config: Sequence[str]) -> list[str]:
    """The recipes that a command was given. Raises ConfigError if there are none."""
    if not recipe and not config:
        raise ConfigError("no recipe is named. Give a YAML file: flexray COMMAND my.yaml")
    return [*recipe, *config]


def load_recipe(paths: str | Sequence[str], overrides: Sequence[str], download: bool) -> RunConfig:
    """The configuration, as `load_config` gives it; with `download`, what it names of the hub is in the cache
    then. Raises ConfigError."""
    config = load_config(paths, overrides)
    if download:
        from flexray.pipeline.hub import download as fetch

        fetch(config, log)
    return config


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"flexray {flexray.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Answer data sets of questions on a Ray cluster, fused over paraphrases inside attention."""


def reports_user_errors(command: Command) -> Command:
    """A fault of the user, of files or of storage becomes one message and exit code 2, without a traceback. A
    signal that ends the command, and a FutureWarning of flexray, are one line each."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            with stoppable(), _plain_warnings():
                if mode := log_mode():
                    start_logging(mode)
                command(*args, **kwargs)
        except BrokenPipeError:  # the reader of the output has closed it: typer ends without a message
            raise
        except (UserError, OSError) as e:
            complain(str(e) or type(e).__name__)
            raise typer.Exit(2) from e

    return wrapped


def command(name: str | None = None, *, passes_on: bool = False) -> Callable[[Command], Command]:
    """Add a function to the application as a command that `reports_user_errors`.

    Args:
        passes_on: options that it does not know are given to it among its arguments.
    """
    settings = {"ignore_unknown_options": passes_on}
    return lambda function: app.command(name, context_settings=settings)(reports_user_errors(function))


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show FutureWarnings of flexray as one line, without the line of code that raised them."""
    show = warnings.showwarning

    def show_plainly(
        message: Warning | str, category: type[Warning], filename: str, *rest: Any, **more: Any
    ) -> None:
        if issubclass(category, FutureWarning) and Path(filename).is_relative_to(PACKAGE):
            typer.echo(f"warning: {printable(redact(str(message)))}", err=True)
        else:
            show(message, category, filename, *rest, **more)

    warnings.showwarning = show_plainly
    try:
        yield
    finally:
        warnings.showwarning = show


def log(line: str) -> None:
    """Print a line of progress."""
    # in one piece: a signal between a line and its end would leave the last line behind it
    sys.stdout.write(f"{printable(redact(line))}\n")
    sys.stdout.flush()


def complain(line: str) -> None:
    """Print what went wrong, on standard error."""
    typer.echo(f"error: {printable(redact(line))}", err=True)
