"""How well each method answers: `make results DATA=folder`, which writes docs/results.md.

DATA holds webqa/*.json and pararel/{facts,patterns}/P*.jsonl. The model writes WebQuestions' paraphrases
itself; ParaRel's are its patterns. Each step is a job of flexray's, and goes on where an earlier start ended.
"""

from __future__ import annotations

import datetime
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jinja2
import typer

from benchmarks.machine import describe_commit, describe_machine
from flexray.api import read
from flexray.config import RunConfig, load_config
from flexray.errors import DataError, UserError
from flexray.evaluation import Evaluation, evaluate
from flexray.runs.export import write_confidences, write_paraphrases
from flexray.runs.run import run
from flexray.sink import OutputFolder

HERE = Path(__file__).resolve().parent
RECIPES = HERE.parent / "jobs" / "recipes"
WEBQA = ["data/webqa", "results/webqa", "models/smollm2"]
PARAREL = ["data/pararel", "models/smollm2"]
BASELINE = "origin"
PARAPHRASES = 5
"""Of a question at most, itself included."""
NUMBERS = {
    "bfloat16": ["model.dtype=bfloat16"],
    "float32": ["model.dtype=float32"],
    "FP8 with bfloat16": ["model.dtype=bfloat16", "model.quantization=fp8"],
}
CONFIDENCE = "methods=[{kind: confidence, samples: 5, temperature: 0.7}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A job, and what it took."""

    name: str
    rows: int
    seconds: float
    """Of this start; start-up and compilation included."""


class Bench:
    """Runs the jobs below one folder."""

    def __init__(self, out: Path) -> None:
        self.out, self.steps = out, list[Step]()

    def job(self, name: str, recipes: Sequence[str], *settings: str) -> RunConfig:
        """A job of these recipes, to its end."""
        paths = [str(RECIPES / f"{recipe}.yaml") for recipe in recipes]
        config = load_config(paths, [f"output={self.out / name}", "engine.max_num_seqs=128", *settings])
        start = time.perf_counter()
        result = run(config)
        rows = result.rows_before + result.rows_now
        self.steps.append(Step(name=name, rows=rows, seconds=time.perf_counter() - start))
        return config

    def confidences(self, name: str, recipes: Sequence[str], *settings: str) -> list[str]:
        """How sure the model is of each paraphrase; returns the settings that read the data set of it."""
        job, file = f"{name}-confidence", self.out / f"{name}.parquet"
        config = self.job(job, recipes, CONFIDENCE, "generation.max_new_tokens=12", *settings)
        print(write_confidences(OutputFolder(config.output), str(file)).summary_line())
        fields = ["num_manual: num_manual", "confidences: confidences"]
        fields += ["relation: relation"] if config.data.kind == "pararel" else []
        split = config.data.split
        return [f"data={{name: {name}, split: {split}, files: {file}, fields: {{{', '.join(fields)}}}}}"]


def webqa_source(bench: Bench, data: Path, limit: int | None) -> list[str]:
    """The settings that read WebQuestions with paraphrases by the model."""
    rows = [row for file in _files(data, "webqa/*.json") for row in json.loads(file.read_text())]
    file = bench.out / "webqa.json"
    file.write_text(json.dumps(_sample(rows, limit)))
    written = bench.out / "webqa-paraphrases.jsonl"
    source = [f"data.files={file}", "data.split=devtest-val"]
    model = "models/smollm2"
    config = bench.job("webqa-paraphrase", ["data/webqa", "prompts/paraphrase", model], *source)
    done = write_paraphrases(OutputFolder(config.output), str(written), keep=PARAPHRASES - 1)
    print(done.summary_line())
    return [*source, f"data.paraphrase_files={written}"]


def webqa(bench: Bench, data: Path, limit: int | None) -> Evaluation:
    """Paraphrases by the model, then their confidences, then all methods."""
    rated = bench.confidences("webqa", WEBQA, *webqa_source(bench, data, limit))
    return _answer(bench, "webqa", WEBQA[1:], rated)


def pararel_source(bench: Bench, data: Path, limit: int | None) -> list[str]:
    """The settings that read ParaRel: its patterns are the paraphrases; a sample is drawn evenly from the
    relations."""
    facts = bench.out / "pararel-sample" / "facts"
    facts.mkdir(parents=True, exist_ok=True)
    files = _files(data, "pararel/facts/P*.jsonl")
    for file in files:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        each = None if limit is None else -(-limit // len(files))
        (facts / file.name).write_text(
            "".join(f"{line}\n" for line in _sample(lines, each)), encoding="utf-8"
        )
    patterns = data / "pararel" / "patterns" / "P*.jsonl"
    source = [f"data.files={facts}/P*.jsonl", f"data.template_files={patterns}"]
    return [*source, f"data.max_paraphrases={PARAPHRASES}", f"data.max_manual={PARAPHRASES}"]


def pararel(bench: Bench, data: Path, limit: int | None) -> Evaluation:
    """Confidences of the patterns, then all methods."""
    rated = bench.confidences("pararel", PARAREL, *pararel_source(bench, data, limit))
    return _answer(bench, "pararel", PARAREL, rated)


def _answer(bench: Bench, name: str, recipes: Sequence[str], settings: Sequence[str]) -> Evaluation:
    config = bench.job(name, [*recipes, "results/methods"], *settings)
    return evaluate([config.output], baseline=BASELINE)


def _files(data: Path, pattern: str) -> list[Path]:
    files = sorted(data.glob(pattern))
    if not files:
        raise DataError(f"{data}: has no {pattern}. Name the folder that holds webqa/ and pararel/.")
    return files


def _sample(rows: list[Any], limit: int | None) -> list[Any]:
    """So many of them, drawn by a fixed seed, in their order."""
    if limit is None or limit >= len(rows):
        return rows
    return [rows[i] for i in sorted(random.Random(0).sample(range(len(rows)), limit))]


def quantization(bench: Bench, data: Path, limit: int | None) -> list[dict[str, Any]]:
    """Both data sets by two methods, in float32, bfloat16 and FP8: rows of a table."""
    found = []
    for name, recipes, source in (
        ("WebQuestions", WEBQA, webqa_source(bench, data, limit)),
        ("ParaRel", PARAREL, pararel_source(bench, data, limit)),
    ):
        said: dict[str, dict[tuple[str, str], str]] = {}
        for number, settings in NUMBERS.items():
            job = f"{name.lower()}-{number.replace(' ', '-')}"
            config = bench.job(job, recipes, "methods=[attention, avg]", *settings, *source)
            rows = read(config.output).to_arrow().to_pylist()
            said[number] = {(row["row_id"], row["method"]): row["prediction"] for row in rows}
            for method in evaluate([config.output]).methods:
                own = [key for key in said[number] if key[1] == method.label]
                other = sum(said[number][key] != said["bfloat16"][key] for key in own)
                exact = method.metrics["exact_match"]
                found.append(
                    {"data": name, "method": method.label, "numbers": number, "exact": exact}
                    | {"other": other / len(own), "questions": len(own)}
                )
    return found


def describe_numbers(rows: list[dict[str, Any]]) -> str:
    """The table of `quantization`."""
    lines = [
        "| data | method | numbers | questions | exact match % | interval | other % |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        low, high = row["exact"].interval
        cells = [row["data"], row["method"], row["numbers"], row["questions"], f"{row['exact'].mean:.1%}"]
        cells += [f"{low:.1%} to {high:.1%}", f"{row['other']:.1%}"]
        lines.append(f"| {' | '.join(map(str, cells))} |".replace("%", ""))
    return "\n".join(lines)


def write_results(
    evaluations: dict[str, Evaluation],
    numbers: list[dict[str, Any]],
    steps: list[Step],
    *,
    command: str,
    docs: Path,
) -> Path:
    """docs/results.md: tables, and in words what they show."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, of numbers and our own names
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}"
    environment.filters["interval"] = lambda pair: f"{100 * pair[0]:.1f} to {100 * pair[1]:.1f}"
    text = environment.get_template("results.md.j2").render(
        evaluations=evaluations,
        numbers=describe_numbers(numbers),
        verdicts={name: _verdict(evaluation) for name, evaluation in evaluations.items()},
        steps=steps,
        baseline=BASELINE,
        paraphrases=PARAPHRASES,
        command=command,
        machine=describe_machine(),
        commit=describe_commit(),
        when=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
    )
    path = docs / "results.md"
    path.write_text(text, encoding="utf-8")
    return path


def _verdict(evaluation: Evaluation) -> dict[str, list[str]]:
    """The methods by whether the interval of their difference to the baseline leaves out 0."""
    found: dict[str, list[str]] = {"better": [], "worse": [], "open": []}
    for comparison in evaluation.comparisons:
        difference = comparison.differences["exact_match"]
        if difference is not None:
            low, high = difference.interval
            side = "better" if low > 0 else "worse" if high < 0 else "open"
            found[side].append(comparison.method)
    return found


def main(
    data: Annotated[Path, typer.Argument(help="Folder with webqa/ and pararel/.")],
    limit: Annotated[int | None, typer.Option(envvar="LIMIT", help="Questions of each; else all.")] = None,
    out: Annotated[Path, typer.Option(envvar="OUT", help="Where the runs go.")] = Path("out/results"),
    docs: Annotated[Path, typer.Option(help="Folder to write results.md into.")] = HERE.parent / "docs",
    only_numbers: Annotated[bool, typer.Option(help="Print the table of FP8 and bfloat16 only.")] = False,
) -> None:
    """Answer WebQuestions and ParaRel by every method, on this machine, and write the tables."""
    out = out if limit is None else out.with_name(f"{out.name}-{limit}")
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(out.resolve())
    try:
        if only_numbers:
            print(describe_numbers(quantization(bench, data.resolve(), limit)))
            return
        evaluations = {
            "WebQuestions": webqa(bench, data.resolve(), limit),
            "ParaRel": pararel(bench, data.resolve(), limit),
        }
        numbers = quantization(bench, data.resolve(), limit)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        raise typer.Exit(2) from e
    command = f"make results DATA=folder{'' if limit is None else f' LIMIT={limit}'}"
    print(write_results(evaluations, numbers, bench.steps, command=command, docs=docs))


if __name__ == "__main__":
    typer.run(main)
