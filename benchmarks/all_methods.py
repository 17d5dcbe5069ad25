"""All methods on a recipe's data, without Ray: `python -m benchmarks.all_methods RECIPE`.

The recipe's data, prompt and model; its methods are replaced by METHODS unless --own is given. Each method
has an engine of its own, whose second call is timed where the first one compiles (on a GPU). Prints accuracy
with Wilson's interval, the paired difference to `origin` (bootstrap over questions, 2,000 resamples), and
seconds for 1,000 questions. With --out, predictions are written as JSON, to compare another run with by
--beside. With --reword, a recipe such as jobs/recipes/prompts/paraphrase.yaml, the model first writes other
wordings of each question.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.machine import describe_commit, describe_machine
from flexray import LLM
from flexray.config import RunConfig, load_config
from flexray.data import scan
from flexray.data.few_shots import with_few_shots
from flexray.evaluation import Bootstrap
from flexray.evaluation.accuracy import wilson_interval
from flexray.evaluation.answer_metrics import contains, exact_match
from flexray.runs.data_sets import new_texts

WORDINGS = 5
"""Of a question at most, itself included, with --reword."""
METHODS: tuple[dict[str, Any], ...] = (
    {"kind": "origin"},
    {"kind": "attention"},
    {"kind": "attention", "paraphrase_scale": "-log N"},
    {"kind": "attention", "positions": "continuous"},
    {"kind": "attention", "layout": "full_prompt"},
    {"kind": "attention", "layout": "full_prompt", "positions": "continuous"},
    {"kind": "ape"},
    {"kind": "concat"},
    {"kind": "per_prompt"},
    {"kind": "avg"},
    {"kind": "max"},
    {"kind": "mean_prob"},
    {"kind": "nbce"},
    {"kind": "draws", "draws": 8, "size": 3},
    {"kind": "draws", "draws": "leave_one_out"},
)


def main(
    recipe: Annotated[list[str], typer.Argument(help="YAML files; a later one wins.")],
    set_: Annotated[list[str], typer.Option("--set", help="section.key=value.")] = [],  # noqa: B006
    quantization: Annotated[str | None, typer.Option(help="fp8, or none.")] = None,
    own: Annotated[bool, typer.Option("--own", help="The recipe's own methods.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write predictions there.")] = None,
    beside: Annotated[Path | None, typer.Option(help="Predictions to compare with.")] = None,
    reword: Annotated[str | None, typer.Option(help="A recipe by which the model writes wordings.")] = None,
    seconds: Annotated[float, typer.Option(help="Begin no method after so many.")] = 1e9,
) -> None:
    """Answer all questions by all methods, and print the table."""
    began = time.perf_counter()
    config = load_config(recipe, set_)
    found = scan(config.data)
    config = with_few_shots(config, [found])
    good = [row for row in found.to_pylist() if not row["error"]]
    rows = [{key: row[key] for key in ("question", "paraphrases", "answers", "num_manual")} for row in good]
    rows = [row | {"id": str(i)} for i, row in enumerate(rows)]
    texts = _settings(config)
    llm = LLM(config.model.path, quantization=quantization, deterministic=True)
    print(f"commit {describe_commit()}; {describe_machine()}")
    if reword:
        of_data = [value for value in set_ if not value.startswith("prompt.")]
        rows = _reword(llm, rows, load_config([*recipe, reword], of_data))
        mean = np.mean([len(row["paraphrases"]) for row in rows])
        print(f"the model has written wordings, {mean:.1f} of a question with itself")
    print(f"{len(rows)} questions of {config.data.name}; {config.model.path}, {quantization or 'as it is'}")
    earlier = json.loads(beside.read_text()) if beside else {}
    said: dict[str, list[str]] = {}
    right: dict[str, np.ndarray] = {}
    methods = [m.model_dump(exclude_defaults=True) for m in config.methods] if own else METHODS
    columns = ("method", "exact match %", "interval", "contains %", "vs origin", "interval", "s for 1,000")
    print(f"| {' | '.join(columns)} | other answers % |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for method in methods:
        if time.perf_counter() - began > seconds:
            break
        if torch.cuda.is_available():
            llm.answer(rows, [method], **texts, progress=False)  # compiles
        start = time.perf_counter()
        answers = llm.answer(rows, [method], **texts, progress=False)
        took = time.perf_counter() - start
        name = answers[0].method
        said[name] = [answer.text for answer in answers]
        right[name] = np.array(
            [exact_match(a.text, row["answers"]) for a, row in zip(answers, rows, strict=True)]
        )
        inside = [contains(a.text, row["answers"]) for a, row in zip(answers, rows, strict=True)]
        low, high = wilson_interval(int(right[name].sum()), len(rows))
        print(
            f"| {name} | {100 * right[name].mean():.1f} | {100 * low:.1f} to {100 * high:.1f} "
            f"| {100 * float(np.mean(inside)):.1f} | {_difference(right, name)} "
            f"| {1000 * took / len(rows):.2f} | {_changed(earlier.get(name), said[name])} |",
            flush=True,
        )
        if out:
            out.write_text(json.dumps(said))


def _settings(config: RunConfig) -> dict[str, Any]:
    """Prompt and generation, as `LLM.answer` takes them."""
    prompt = config.prompt
    return {
        "instruction": prompt.instruction,
        "few_shots": [shot.model_dump(exclude_none=True) for shot in prompt.few_shots],
        "question_template": prompt.question_template,
        "answer_prefix": prompt.answer_prefix,
        "max_new_tokens": config.generation.max_new_tokens,
        "stop_at_newline": config.generation.stop_at_newline,
        "include_question": False,
    }


def _reword(llm: LLM, rows: list[dict[str, Any]], config: RunConfig) -> list[dict[str, Any]]:
    """The rows with the question and what the model writes as their paraphrases."""
    methods = [method.model_dump(exclude_defaults=True) for method in config.methods]
    written = llm.answer(rows, methods, **_settings(config), progress=False)
    return [
        row | {"paraphrases": [row["question"], *new_texts([row["question"]], a.samples)][:WORDINGS]}
        for row, a in zip(rows, written, strict=True)
    ]


def _difference(right: dict[str, np.ndarray], name: str) -> str:
    """In points, and its interval."""
    if name == "origin" or "origin" not in right:
        return "- | -"
    each = right[name].astype(float) - right["origin"]
    low, high = Bootstrap().interval(each)
    return f"{100 * each.mean():+.1f} | {100 * low:+.1f} to {100 * high:+.1f}"


def _changed(before: list[str] | None, now: list[str]) -> str:
    if before is None:
        return "-"
    return f"{100 * float(np.mean([a != b for a, b in zip(before, now, strict=True)])):.1f}"


if __name__ == "__main__":
    typer.run(main)
