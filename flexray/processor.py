"""A step of a Ray Data pipeline that adds answers to rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from flexray.config import RunConfig, load_config, parse_config
from flexray.errors import ConfigError
from flexray.models.hub import hub_model, pin_model
from flexray.sink.records.rows import ROW_SCHEMA

if TYPE_CHECKING:  # this module can be imported without Ray; a processor needs it
    import ray.data

MapRow = Callable[[dict[str, Any]], dict[str, Any]]
Processor = Callable[["ray.data.Dataset"], "ray.data.Dataset"]

QUESTION_COLUMNS = (
    "shard_id",
    "dataset",
    "split",
    "source_file",
    "source_row",
    "source_id",
    "question",
    "paraphrases",
    "answers",
    "relation",
    "num_manual",
    "confidences",
    "candidates",
)
"""The columns of the output that describe the question, which the rows have already."""
ANSWER_COLUMNS = tuple(name for name in ROW_SCHEMA.names if name not in QUESTION_COLUMNS)
"""The columns that a processor adds to each row."""


def build_processor(
    config: RunConfig | str | Path | Mapping[str, Any],
    *,
    preprocess: MapRow | None = None,
    postprocess: MapRow | None = None,
    batch_size: int = 512,
    concurrency: int | tuple[int, int] = 1,
    num_gpus: float | None = None,
) -> Processor:
    """Make a function that adds answers to a Ray data set of questions, lazily.

    Args:
        config: a configuration, a recipe's path or its tree. `output` and `data.files` are not used and may
            be missing; `data.fields` and `data.include_question` describe the rows.
        preprocess: from a row to one with the fields that `data.fields` names.
        postprocess: from a row with answers to the row that comes out.
        batch_size: rows that an actor answers in one call.
        concurrency: the number of actors, or the least and the most.
        num_gpus: for each actor. None: 0 if the cluster has none or model.device is cpu, else
            engine.tensor_parallel.

    Returns:
        A function whose result has a row for each row and method, with all columns of the row and
        ANSWER_COLUMNS. A faulty row has an `error`.

    Raises:
        ConfigError: a configuration that cannot be used, or a model of the Hugging Face hub that this
            machine's cache does not have.
    """
    settings = _settings(config)
    if hub_model(settings.model.path) is not None:  # all actors answer with the same commit
        path = pin_model(settings.model.path)
        settings = settings.model_copy(update={"model": settings.model.model_copy(update={"path": path})})

    def process(rows: ray.data.Dataset) -> ray.data.Dataset:
        import ray
        import ray.data

        gpus = num_gpus
        if gpus is None:
            some = settings.model.device != "cpu" and ray.cluster_resources().get("GPU")
            gpus = float(settings.engine.tensor_parallel) if some else 0.0
        least, most = (concurrency, concurrency) if isinstance(concurrency, int) else concurrency
        if preprocess is not None:
            rows = rows.map(preprocess)
        rows = rows.map_batches(
            _AnswerBatch,
            fn_constructor_args=(settings.model_dump(mode="json", exclude_unset=True),),
            batch_size=batch_size,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most),
            num_gpus=gpus,
        )
        return rows if postprocess is None else rows.map(postprocess)

    return process


def _settings(config: RunConfig | str | Path | Mapping[str, Any]) -> RunConfig:
    if isinstance(config, RunConfig):
        return config
    if isinstance(config, str | Path):
        return load_config(str(config), [])
    tree = {"output": "-", **config}
    tree["data"] = {"name": "rows", "files": "-", **tree.get("data", {})}
    return parse_config(tree, source="build_processor")


class _AnswerBatch:
    """The actor, which holds a model and answers batch after batch."""

    def __init__(self, config: dict[str, Any]):
        from flexray.llm.row_answerer import RowAnswerer

        self._config = RunConfig.model_validate(config)  # loads its plug-ins
        self._answerer = RowAnswerer(self._config)

    def __call__(self, rows: pa.Table) -> pa.Table:
        if taken := sorted(set(rows.column_names) & set(ANSWER_COLUMNS)):
            raise ConfigError(
                f"the rows have columns that answers have: {', '.join(taken)}. Rename or drop them in "
                "preprocess."
            )
        answers = self._answerer.answer(rows.to_pylist(), self._config)
        methods = len(self._config.methods)
        repeated = rows.take([i for i in range(rows.num_rows) for _ in range(methods)])
        for name in ANSWER_COLUMNS:
            repeated = repeated.append_column(ROW_SCHEMA.field(name), answers[name])
        return repeated
