"""Which row of a run, and which of its methods."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from flexray.config import MethodConfig, RunConfig
from flexray.config.data import DataConfig
from flexray.data import scan, to_questions
from flexray.data.question import Question
from flexray.errors import ConfigError, DataError
from flexray.methods import make_methods
from flexray.pipeline.prepare import build_prompts, prompt_builder
from flexray.prompts.prompt import Prompt


def choose_method(methods: Sequence[MethodConfig], wanted: str | None, default: int = 0) -> int:
    """The index of a run's method, by its name or by its number from 1; `default` if none is asked for.

    Raises:
        ConfigError: there is no such method; or the methods themselves have a fault.
    """
    names = [method.name for method in make_methods(methods)]
    if wanted is None:
        return default
    if wanted in names:
        return names.index(wanted)
    if (number := _number(wanted)) is not None and 1 <= number <= len(names):
        return number - 1
    known = ", ".join(f"{number} {name}" for number, name in enumerate(names, start=1))
    raise ConfigError(
        f"--method {wanted}: the recipe has no such method. It has: {known}. Others can be set, for example "
        "--set 'methods=[{layout: full_prompt}]'."
    )


def find_row(config: RunConfig, row: str) -> tuple[Question, Prompt]:
    """A row of the data set, read and tokenised as the run does it.

    Args:
        config: with its few-shots drawn.
        row: its id (`data set/split/source id`), or its number from 1.

    Raises:
        DataError: there is no such row, or the run makes an error row of it.
        ModelError: the model folder's tokenizer cannot be used.
    """
    found = to_questions(_find(config.data, row), dataset=config.data.name, split=config.data.split)
    (question,), (prompt,) = build_prompts(found, prompt_builder(config))
    if prompt is None:
        raise DataError(f"{question.row_id} is an error row: {question.error}")
    return question, prompt


def _find(data: DataConfig, row: str) -> pa.Table:
    number = _number(row)
    if number is not None and number > 0:  # later rows need not be read
        limit = number if data.limit is None else min(number, data.limit)
        data = data.model_copy(update={"limit": limit})
    found = scan(data)
    if number is None:
        if (rows := found.filter(pc.equal(found["row_id"], row))).num_rows:
            return rows
        raise DataError(
            f"--row {row}: no row of the data set has this id. Ids are made like {found['row_id'][0]}; "
            "or give the row's number."
        )
    if not 1 <= number <= found.num_rows:
        raise DataError(f"--row {number}: the data set has {found.num_rows} rows, counted from 1.")
    return found.slice(number - 1, 1)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None
