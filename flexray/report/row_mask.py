"""The mask of one row of a run's data set, as the engine will apply it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from flexray.config import MethodConfig, RunConfig
from flexray.console.terminal import printable
from flexray.data import with_few_shots
from flexray.engine.stopping_criteria import token_text
from flexray.masks.picture import MaskPicture, draw_mask
from flexray.methods import make_methods
from flexray.models.checkpoint import load_tokenizer
from flexray.prompts.prompt import Prompt
from flexray.report.explain.rows import choose_method, find_row
from flexray.report.explain.stream import make_stream
from flexray.report.mask_html import mask_page
from flexray.report.mask_picture import render_mask_text
from flexray.report.mask_png import save_mask_png
from flexray.report.saving import writing


def show_row_mask(
    config: RunConfig,
    *,
    row: str,
    png: Path,
    generated: int,
    html: Path | None = None,
    method: str | None = None,
    console: Console | None = None,
) -> None:
    """Draw who sees whom in one row's prompt: in the terminal, as a PNG, and if asked as an HTML page.

    Args:
        row: the row's id, or its number from 1.
        generated: answer tokens to add behind the answer prefix.
        method: a name, or a number from 1, of the recipe's methods. None: the first that is `attention`.

    Raises:
        ConfigError: there is no such method. DataError: there is no such row, or it has a fault.
        OutputError: a file cannot be written. ModelError: the model folder's tokenizer cannot be used.
    """
    console = console or Console()
    first = next((i for i, m in enumerate(config.methods) if m.kind == "attention"), 0)
    chosen = config.methods[choose_method(config.methods, method, default=first)]
    config = with_few_shots(config)
    _, question, prompt = find_row(config, row)
    picture = _draw(prompt, chosen, generated)
    title = _title(chosen)

    tokenizer = load_tokenizer(config.model.path, trust_remote_code=config.model.trust_remote_code)
    labels = [token_text(tokenizer, i) if i >= 0 else "..." for i in picture.token_ids.tolist()]
    heading = f"{question.row_id}: {question.question}"
    console.print(printable(heading), markup=False)
    console.print(render_mask_text(picture.mask, labels, picture.segments))
    with writing(png, "--png"):
        save_mask_png(picture.mask, picture.segments, png, title=title, position_ids=picture.positions)
    console.print(f"picture: {png}", markup=False)
    if html is not None:
        page = mask_page(picture, labels, title=title, question=heading)
        with writing(html, "--html"):
            html.write_text(page, encoding="utf-8")
        console.print(f"page: {html}", markup=False)


def _draw(prompt: Prompt, method: MethodConfig, generated: int) -> MaskPicture:
    """An attention method's mask as the definition has it, copies of the context written out; of the other
    methods each sequence is an answer."""
    if method.kind == "attention":
        return draw_mask(
            prompt, method.layout, method.positions, generated, cross_attention=method.cross_attention
        )
    (planned,) = make_methods([method])
    scopes = planned.scopes(prompt)
    return make_stream(prompt, planned.prefix, scopes, [(-1,) * generated] * len(scopes)).picture()


def _title(method: MethodConfig) -> str:
    if method.kind != "attention":
        return f"method {method.name}"
    cross = ", cross_attention" if method.cross_attention else ""
    return f"layout {method.layout}, positions {method.positions}{cross}"
