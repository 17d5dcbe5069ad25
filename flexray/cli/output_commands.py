"""The commands that check, repair, score and show an output folder, or one row of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from flexray.cli.app import (
    AllOption,
    ConfigOption,
    DownloadOption,
    OutputArgument,
    RecipeArgument,
    SetOption,
    command,
    load_recipe,
    log,
    named,
)
from flexray.console.terminal import printable

RowOption = Annotated[str, typer.Option(help="A row of the data set: its number, or its row_id.")]
MethodOption = Annotated[str | None, typer.Option(help="A method of the recipe: its name, or its number.")]
MAX_FINDINGS = 100  # that are printed; a run that has just begun may miss a hundred thousand shards


@command()
def verify(
    output: OutputArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
    recompute: Annotated[
        int, typer.Option(min=0, help="Compute so many random rows again, and compare them.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of --recompute: another one chooses other rows.")] = 0,
) -> None:
    """Check an output folder: exit code 1 if a row is missing, doubled, damaged or unaccounted, or is
    computed otherwise than it is stored."""
    from flexray.runs.recompute import recompute as compute_again
    from flexray.sink import OutputFolder
    from flexray.sink import verify as verify_folder

    report = verify_folder(OutputFolder(output))
    to_standard_error = partial(typer.echo, err=True)
    again = None
    if recompute and report.ok:
        again = compute_again(output, recompute, seed=seed, log=to_standard_error)
    elif recompute:
        to_standard_error("nothing is computed again before the folder is in order")
    if as_json:
        tree = report.to_dict() | ({"recomputed": again.to_dict()} if again else {})
        typer.echo(json.dumps(tree, indent=2, ensure_ascii=False))
    else:
        _print_findings([*report.findings, *(again.differences if again else ())])
        for reason, rows in again.not_comparable.items() if again else ():
            typer.echo(printable(f"{rows} rows need not come out as they are stored: {reason}"))
        typer.echo(report.summary_line())
        if again:
            typer.echo(again.summary_line())
    if not report.ok or not (again is None or again.ok):
        raise typer.Exit(1)


def _print_findings(findings: Sequence[object]) -> None:
    for finding in findings[:MAX_FINDINGS]:
        typer.echo(printable(finding))
    if len(findings) > MAX_FINDINGS:
        typer.echo(f"... and {len(findings) - MAX_FINDINGS} more findings; --json has them all")


@command()
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

    done = repair_folder(OutputFolder(output), dry_run=dry_run, all_orphans=orphans, log=log)
    typer.echo(done.summary_line())


@command()
def show(
    output: OutputArgument,
    answers: Annotated[int, typer.Option(min=0, help="Questions to show with their answers.")] = 5,
    wrong: Annotated[
        bool, typer.Option("--wrong", help="Only questions that were answered wrongly.")
    ] = False,
    everything: AllOption = False,
) -> None:
    """Print accuracy by method, some answers, the most frequent errors, and what looks odd."""
    from flexray.report.notes import look_at
    from flexray.report.run_folder import RunFolder
    from flexray.report.show import print_answers

    run = RunFolder.open(output, everything=everything)
    print_answers(look_at(run, examples=answers, only_wrong=wrong), output=output)
    if run.damage:
        raise typer.Exit(1)


@command()
def evaluate(
    outputs: Annotated[list[str], typer.Argument(help="Output folders or URLs of runs.")],
    baseline: Annotated[str | None, typer.Option(help="Compare with this method only.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything there.")] = None,
    by_relation: Annotated[bool, typer.Option("--by-relation", help="Print each relation too.")] = False,
    everything: AllOption = False,
    set_: Annotated[
        list[str],
        typer.Option("--set", help="evaluation.key=value, other than in the recipe; repeatable."),
    ] = [],
    plugin: Annotated[
        list[str], typer.Option(help="Module or Python file that registers metrics; repeatable.")
    ] = [],
) -> None:
    """Score the methods of one or several runs on the committed rows, and compare them row by row."""
    from flexray.config.plugins import load_plugins
    from flexray.evaluation import evaluate as evaluate_runs
    from flexray.evaluation import print_evaluation
    from flexray.report.output_files import write_file

    load_plugins(plugin)
    evaluation = evaluate_runs(outputs, baseline=baseline, everything=everything, overrides=set_)
    print_evaluation(evaluation, by_relation=by_relation)
    if json_file is not None:
        write_file(json_file, evaluation.to_json(), "--json")


@command()
def export(
    output: OutputArgument,
    to: Annotated[
        str, typer.Option(help="File or URL that ends in .parquet, .csv, .jsonl, .feather or .sql.")
    ],
    wide: Annotated[
        bool, typer.Option("--wide", help="A row a question and a column a method, with its prediction.")
    ] = False,
    methods: Annotated[str, typer.Option(help="Only these, separated by commas; by default all.")] = "",
    rows_per_file: Annotated[
        int, typer.Option(min=0, help="Several files, NAME-00000 and so on, of so many rows. 0: one file.")
    ] = 0,
    columns: Annotated[
        Literal["output", "script"],
        typer.Option(help="script: prompt, generation, predict_lemma and others of scripts for pandas."),
    ] = "output",
    everything: AllOption = False,
) -> None:
    """Write the committed rows into one file, or several, for other programs; or a view of SQL over them."""
    from flexray.runs.export import export as write_rows

    names = [name.strip() for name in methods.split(",") if name.strip()]
    done = write_rows(
        output,
        to,
        wide=wide,
        methods=names,
        everything=everything,
        rows_per_file=rows_per_file,
        columns=columns,
    )
    for note in done.notes:
        log(note)
    typer.echo(done.summary_line())


@command()
def report(
    output: OutputArgument,
    html: Annotated[
        Path | None, typer.Option(help="Where the page goes; by default OUT-report.html, beside OUT.")
    ] = None,
    everything: AllOption = False,
) -> None:
    """Write one HTML file about a run, finished or not: accuracy, speed, fallbacks, error rows."""
    from flexray.report.page import default_page, write_page

    page = html or default_page(output)
    write_page(output, page, everything=everything)
    log(f"report: {page}")


@command("show-mask")
def show_mask(
    recipe: RecipeArgument = [],
    config: ConfigOption = [],
    set_: SetOption = [],
    row: RowOption = "1",
    method: MethodOption = None,
    png: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("out/mask.png"),
    generated: Annotated[int, typer.Option(min=0, help="Answer tokens to add behind the answer prefix.")] = 2,
    download: DownloadOption = False,
) -> None:
    """Draw who sees whom in one row's prompt: in the terminal, and as PNG."""
    checked = load_recipe(named(recipe, config), set_, download)
    from flexray.report.show_mask import show_mask as draw_mask

    draw_mask(checked, row=row, method=method, png=png, generated=generated)


@command()
def explain(
    row: RowOption,
    recipe: RecipeArgument = [],
    config: ConfigOption = [],
    set_: SetOption = [],
    method: MethodOption = None,
    top: Annotated[int, typer.Option(min=1, help="Tokens shown for each step.")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything there.")] = None,
    download: DownloadOption = False,
) -> None:
    """Answer one row again on this machine, and show the alternatives and the attention of each token."""
    checked = load_recipe(named(recipe, config), set_, download)
    from flexray.report.explain.explain import explain as explain_row
    from flexray.report.explain.show import print_explanation
    from flexray.report.output_files import write_file

    explanation = explain_row(checked, row=row, method=method, top=top)
    print_explanation(explanation)
    if json_file is not None:
        write_file(json_file, explanation.to_json(), "--json")
        log(f"json: {json_file}")
