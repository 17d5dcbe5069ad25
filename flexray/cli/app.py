"""The application, and what its commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any

import typer

from flexray.console.log import log_mode, start_logging
from flexray.console.signals import stoppable
from flexray.console.terminal import printable
from flexray.errors import UserError
from flexray.storage import redact

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

ConfigOption = Annotated[
    list[str], typer.Option("--config", "-c", help="YAML file, path or URL; repeatable, a later one wins.")
]
OutputArgument = Annotated[str, typer.Argument(help="Output folder or URL of a run.")]
SetOption = Annotated[
    list[str], typer.Option("--set", help="section.key=value, overrides the file; repeatable.")
]

AllowCodeChangeOption = Annotated[
    bool,
    typer.Option("--allow-code-change", help="Go on with a run of another values version."),
]


def reports_user_errors(command: Callable[..., None]) -> Callable[..., None]:
    """A fault of the user's, or of files or storage, is one clear message and exit code 2, no traceback. A
    signal that ends the command is one line, too."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            with stoppable():
                if mode := log_mode():
                    start_logging(mode)
                command(*args, **kwargs)
        except BrokenPipeError:  # who read what it prints has enough: typer ends it without a word
            raise
        except (UserError, OSError) as e:
            typer.echo(f"error: {printable(redact(str(e) or type(e).__name__))}", err=True)
            raise typer.Exit(2) from e

    return wrapped


def log(line: str) -> None:
    """A line of progress."""
    print(printable(redact(line)), flush=True)
