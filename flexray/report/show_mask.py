"""The mask of one row of a run's data set: who sees whom in its prompt."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
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
from flexray.report.formatting import one_line
from flexray.report.mask_picture import MaskPicture, segment_kind
from flexray.report.mask_png import mask_png
from flexray.report.mask_text import render_mask_text
from flexray.report.output_files import fill_page, write_file
from flexray.report.tables import Table


def show_mask(
    config: RunConfig,
    *,
    row: str,
    png: Path,
    generated: int,
    html: Path | None = None,
    method: str | None = None,
) -> None:
    """Draw who sees whom in one row's prompt: in the terminal, as a PNG, and if asked as an HTML page.

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
    title = _title(chosen)
    heading = f"{question.row_id}: {question.question}"
    console.print(printable(heading), markup=False)
    console.print(render_mask_text(picture))
    write_file(png, mask_png(picture, title=title), "--png")
    console.print(f"picture: {png}", markup=False)
    if html is not None:
        write_file(html, mask_page(picture, title=title, question=heading), "--html")
        console.print(f"page: {html}", markup=False)


def stream_of(prompt: Prompt, method: MethodConfig, generated: int) -> Stream:
    """A method's stream by its definition: copies of the context that the engine computes once are written
    out. Each answer has `generated` tokens that are not known yet, with id -1."""
    (planned,) = make_methods([method])
    prefix = dataclasses.replace(
        planned.prefix, copies=planned.prefix.copies or method.layout == "full_prompt"
    )
    scopes = planned.scopes(prompt)
    return make_stream(prompt, prefix, scopes, [(-1,) * generated] * len(scopes))


def _title(method: MethodConfig) -> str:
    if method.kind != "attention":
        return f"method {method.name}"
    cross = ", cross_attention" if method.cross_attention else ""
    return f"layout {method.layout}, positions {method.positions}{cross}"


def mask_page(picture: MaskPicture, *, title: str, question: str) -> str:
    """An HTML page on which each pair can be asked who sees whom, and why.

    Args:
        title: what mask it is.
        question: the row's id and question.
    """
    positions = [picture.positions[s.start : s.stop] for s in picture.segments]
    texts = [[one_line(label) for label in picture.labels[s.start : s.stop]] for s in picture.segments]
    segments = [
        {
            "name": s.name,
            "kind": segment_kind(s.name),
            "colour": picture.colours[s.name],
            "start": s.start,
            "stop": s.stop,
            "positions": ids.tolist(),
            "tokens": tokens,
        }
        for s, ids, tokens in zip(picture.segments, positions, texts, strict=True)
    ]
    return fill_page(
        "mask",
        {"segments": segments, "rows": visible_spans(picture.mask)},
        title=title,
        question=question,
        counts=picture.counts(),
        segments=segments,
        table=Table(
            ("segment", "#tokens", "#in the stream", "#positions", "text"),
            [
                (s.name, f"{len(s)}", _span(s.start, s.stop - 1), _span(*ids[[0, -1]]), "".join(tokens))
                for s, ids, tokens in zip(picture.segments, positions, texts, strict=True)
            ],
        ),
    )


def _span(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first}–{last}"


def visible_spans(mask: np.ndarray) -> list[list[int]]:
    """Of each query the keys that it sees, as [start, stop, start, stop, ..]: a handful of numbers where a
    row of the mask has thousands.

    >>> visible_spans(np.array([[True, False, False], [True, False, True]]))
    [[0, 1], [0, 1, 2, 3]]
    """
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1) != 0
    return [np.flatnonzero(row).tolist() for row in edges]
