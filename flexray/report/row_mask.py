"""The mask of one row of a run's data set, as the engine will apply it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from flexray.config import MethodConfig, RunConfig
from flexray.data import read_shard, scan, with_few_shots
from flexray.engine.checkpoint import load_tokenizer
from flexray.masks.picture import draw_mask
from flexray.pipeline.prepare import make_prompt_builder
from flexray.report.mask_picture import render_mask_text
from flexray.report.mask_png import save_mask_png
from flexray.terminal import printable
from flexray.types import DataError, OutputError, RowFault


def show_row_mask(
    config: RunConfig, *, row: int, png: Path, generated: int, console: Console | None = None
) -> None:
    """Draw who sees whom in one row's prompt: in the terminal, and as a PNG.

    Args:
        row: which row of the data set, from 1.
        generated: answer tokens to add behind the cue.

    Raises:
        DataError: there is no such row, or it has a fault. OutputError: the PNG cannot be written.
        ModelError: the model folder's tokenizer cannot be used.
    """
    console = console or Console()
    config = with_few_shots(config)
    shards = scan(config.data.model_copy(update={"limit": row})).shards
    num_rows = sum(s.num_rows for s in shards)
    if num_rows < row:
        raise DataError(f"--row {row}: the data set has {num_rows} rows.")
    question = read_shard(shards[-1], config.data)[-1]
    if question.error:
        raise DataError(question.error)
    try:
        prompt = make_prompt_builder(config).build(question)
    except RowFault as fault:
        raise DataError(str(fault)) from fault
    method = next((m for m in config.methods if m.kind == "attention"), MethodConfig())
    layout, positions = method.layout, method.positions
    picture = draw_mask(prompt, layout, positions, generated, cross_attention=method.cross_attention)

    tokenizer = load_tokenizer(config.model.path, trust_remote_code=config.model.trust_remote_code)
    labels = [str(tokenizer.decode([i])) if i >= 0 else "..." for i in picture.token_ids.tolist()]
    console.print(printable(f"{question.row_id}: {question.question}"), markup=False)
    console.print(render_mask_text(picture.mask, labels, picture.segments))
    try:
        png.parent.mkdir(parents=True, exist_ok=True)
        save_mask_png(
            picture.mask,
            picture.segments,
            png,
            layout=layout,
            positions=positions,
            position_ids=picture.positions,
        )
    except OSError as e:
        raise OutputError(f"{png}: the picture cannot be written: {e}. Give another --png.") from e
    console.print(f"picture: {png}", markup=False)
