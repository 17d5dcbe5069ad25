"""The commands that answer a data set, here or on a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from flexray.cli.app import (
    AllowCodeChangeOption,
    ConfigOption,
    DownloadOption,
    RecipeArgument,
    SetOption,
    command,
    complain,
    load_recipe,
    log,
    named,
)
from flexray.config import load_config
from flexray.storage import redact

ToOption = Annotated[
    str, typer.Option("--to", help="Data set to write: FILE.jsonl or FILE.parquet, or a URL.")
]
ReplaceChangedOption = Annotated[
    bool,
    typer.Option(
        "--replace-changed",
        help="Compute rows again whose question has changed since they were answered. Else they are refused.",
    ),
]
FreshOption = Annotated[bool, typer.Option(help="Discard the output folder's earlier run first.")]


@command()
def run(
    recipe: RecipeArgument = [],
    config: ConfigOption = [],
    set_: SetOption = [],
    fresh: FreshOption = False,
    allow_code_change: AllowCodeChangeOption = False,
    replace_changed: ReplaceChangedOption = False,
    download: DownloadOption = False,
) -> None:
    """Answer what the recipe names and its output folder does not have yet."""
    checked = load_recipe(named(recipe, config), set_, download)
    log("checking methods, output folder, data files and model")  # the imports below take seconds
    from flexray.report.notes import look_at
    from flexray.report.progress_bar import show_progress
    from flexray.report.run_folder import RunFolder
    from flexray.report.show import print_answers
    from flexray.report.summary import print_summary
    from flexray.report.work import WorkSummary
    from flexray.runs.run import over_limits
    from flexray.runs.run import run as run_job

    with show_progress(log) as progress:
        result = run_job(
            checked,
            fresh=fresh,
            allow_code_change=allow_code_change,
            replace_changed=replace_changed,
            progress=progress,
        )
    shards = [WorkSummary.of(manifest) for manifest in result.manifests.values()]
    # the wall time is that of this start's rows only
    seconds = None if result.rows_before else result.seconds
    names = [method.name for method in checked.methods]
    print_summary(shards, methods=names, seconds=seconds)
    typer.echo()
    folder = RunFolder.open(checked.output)
    print_answers(look_at(folder), output=redact(checked.output))
    over = over_limits(result.manifests.values(), checked.limits)
    if over:
        complain(over)
    if over or folder.damage:
        raise typer.Exit(1)


@command("retry-errors")
def retry_errors(
    recipe: RecipeArgument = [],
    config: ConfigOption = [],
    set_: SetOption = [],
    allow_code_change: AllowCodeChangeOption = False,
    download: DownloadOption = False,
) -> None:
    """Answer the error rows of a run again; good rows, and shards not committed yet, stay as they are."""
    checked = load_recipe(named(recipe, config), set_, download)
    log("checking methods, output folder, data files and model")
    from flexray.report.progress_bar import show_progress
    from flexray.runs.retry_errors import retry_errors as retry

    with show_progress(log) as progress:
        result = retry(checked, allow_code_change=allow_code_change, progress=progress)
    typer.echo(result.summary_line())


@command()
def paraphrase(
    to: ToOption,
    recipe: RecipeArgument = [],
    config: ConfigOption = [],
    set_: SetOption = [],
    keep: Annotated[int, typer.Option(min=1, help="Paraphrases of a question at most.")] = 5,
    fresh: FreshOption = False,
    download: DownloadOption = False,
) -> None:
    """Sample paraphrases of each question and write them as a data set; resumes as `run` does."""
    from flexray.runs.data_sets import check_export, few_shot_runs, write_paraphrases
    from flexray.sink import OutputFolder

    recipes = named(recipe, config)
    checked = load_config(recipes, set_)
    check_export(checked, "sampled", to)
    runs = few_shot_runs(checked)
    for overrides in runs.values():
        run(recipes, set_=[*set_, *overrides], fresh=fresh, download=download)
    typer.echo(write_paraphrases([*map(OutputFolder, runs)], to, keep=keep).summary_line())


@command()
def confidence(
    to: ToOption,
    recipe: RecipeArgument = [],
    config: ConfigOption = [],
    set_: SetOption = [],
    fresh: FreshOption = False,
    download: DownloadOption = False,
) -> None:
    """Write a data set with the model's confidence for each paraphrase; resumes as `run` does."""
    from flexray.runs.data_sets import check_export, write_confidences
    from flexray.sink import OutputFolder

    recipes = named(recipe, config)
    checked = load_config(recipes, set_)
    check_export(checked, "confidence", to)
    run(recipes, set_=set_, fresh=fresh, download=download)
    typer.echo(write_confidences(OutputFolder(checked.output), to).summary_line())


@command()
def nightly(
    recipes: Annotated[
        list[str], typer.Argument(help="YAML files, paths or URLs, and folders of them.")
    ] = [],
    config: ConfigOption = [],
    set_: SetOption = [],
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Then compute the error rows again that are there.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read back all rows, also where there was nothing to do.")
    ] = False,
    allow_code_change: AllowCodeChangeOption = False,
    replace_changed: ReplaceChangedOption = False,
    download: DownloadOption = False,
) -> None:
    """Answer what is new or unfinished of each recipe; safe to start twice."""
    from flexray.runs.nightly import nightly as do_nightly

    night = do_nightly(
        named(recipes, config),
        set_,
        retry=retry_errors,
        verify_all=verify,
        allow_code_change=allow_code_change,
        replace_changed=replace_changed,
        fetch=download,
        log=log,
        complain=complain,
    )
    raise typer.Exit(night.exit_code)


@command()
def adopt(
    folders: Annotated[
        list[str], typer.Argument(help="Output folders of earlier runs, or folders of nights of flexray 0.1.")
    ],
    config: ConfigOption,
    set_: SetOption = [],
    download: DownloadOption = False,
) -> None:
    """Bring the answers of earlier runs into the recipe's output folder; nothing is computed."""
    checked = load_recipe(config, set_, download)
    from flexray.runs.adopt import adopt as adopt_runs

    typer.echo(adopt_runs(checked, folders, log=log).summary_line())
