"""The mask of one row of a run's data set: who sees whom in its prompt."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rich.console import Console

from flexray.config import MethodConfig, RunConfig
from flexray.console.terminal import printable
from flexray.data import scan, with_few_shots
from flexray.engine.stopping_criteria import token_text
from flexray.masks.stream import Stream, make_stream
from flexray.methods import make_methods
from flexray.models.checkpoint import load_tokenizer
from flexray.prompts.prompt import Prompt
from flexray.report.explain.selection import choose_method, find_row
from flexray.report.mask_picture import MaskPicture, mask_png, render_mask_text
from flexray.report.output_files import write_file


def show_mask(config: RunConfig, *, row: str, png: Path, generated: int, method: str | None = None) -> None:
    """Draw who sees whom in one row's prompt: in the terminal, and as a PNG.

    Args:
        row: the row's id, or its number from 1.
        generated: answer tokens to add after the answer prefix.
        method: a name, or a number from 1, of the recipe's methods. None: the first that is `attention`.

    Raises:
        ConfigError: there is no such method. DataError: there is no such row, or it has a fault.
        OutputError: a file cannot be written. ModelError: the model folder's tokenizer cannot be used.
    """
    console = Console()
    first = next((i for i, m in enumerate(config.methods) if m.kind == "attention"), 0)
    chosen = config.methods[choose_method(config.methods, method, default=first)]
    config = with_few_shots(config, map(scan, [config.data]))
    question, prompt = find_row(config, row)
    tokenizer = load_tokenizer(config.model.path, trust_remote_code=config.model.trust_remote_code)
    picture = MaskPicture.of(
        stream_of(prompt, chosen, generated), lambda i: token_text(tokenizer, i) if i >= 0 else "..."
    )
    console.print(printable(f"{question.row_id}: {question.question}"), markup=False)
    console.print(render_mask_text(picture), soft_wrap=True)
    write_file(png, mask_png(picture, title=chosen.name), "--png")
    console.print(f"picture: {png}", markup=False)


def stream_of(prompt: Prompt, method: MethodConfig, generated: int) -> Stream:
    """A method's stream by its definition: copies of the context that the engine computes once are written
    out. Each answer has `generated` tokens that are not known yet, with id -1."""
    (planned,) = make_methods([method])
    prefix = dataclasses.replace(
        planned.prefix, copies=planned.prefix.copies or method.layout == "full_prompt"
    )
    scopes = planned.scopes(prompt)
    return make_stream(prompt, prefix, scopes, [(-1,) * generated] * len(scopes))
