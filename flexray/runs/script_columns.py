"""Rows in the columns that scripts for pandas write, so that notebooks over their Feather files go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import pyarrow as pa

from flexray.config import parse_config
from flexray.errors import UserError
from flexray.evaluation.answer_metrics import find_lemmatizer
from flexray.sink import AnyRecord

_TEXTS = pa.list_(pa.string())
SCHEMA = pa.schema(
    [
        pa.field("uuid", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("relation", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("paraphrase", pa.string()),
        pa.field("paraphrases", _TEXTS, nullable=False),
        pa.field("prompt", pa.string()),
        pa.field("prompts", _TEXTS, nullable=False),
        pa.field("answers", _TEXTS),
        pa.field("prediction", pa.string(), nullable=False),
        pa.field("generation", pa.string(), nullable=False),
        pa.field("predict_lemma", _TEXTS, nullable=False),
        pa.field("answer_lemmas", pa.list_(_TEXTS)),
        pa.field("error", pa.string(), nullable=False),
    ]
)
PROMPTS = ("prompt", "prompts")
"""Columns that need the run's model folder, which has the tokenizer."""


class ScriptColumns:
    """Makes these rows of output rows.

    Attributes:
        schema: SCHEMA, without PROMPTS if they cannot be made again.
        notes: what a user should know of the columns.
    """

    def __init__(self, run: AnyRecord):
        self._prompt, why = _prompt_maker(run)
        self.schema = SCHEMA
        self.notes: tuple[str, ...] = ()
        if self._prompt is None:
            self.schema = pa.schema([field for field in SCHEMA if field.name not in PROMPTS])
            self.notes = (f"without {' and '.join(PROMPTS)}, which need the run's tokenizer: {why}",)
        lemmatizer = find_lemmatizer()
        self._lemmas = lru_cache(maxsize=16_384)(lambda text: list(lemmatizer(text)))
        self.notes += (f"lemmas: {lemmatizer.name}",)

    def of(self, table: pa.Table) -> pa.Table:
        """The rows (of `schema`) of a table (ROW_SCHEMA): one each, but one for each paraphrase of methods
        that answer each of them alone."""
        rows = [made for row in table.to_pylist() for made in self._rows(row)]
        return pa.Table.from_pylist(rows, schema=self.schema)

    def _rows(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        alone = row["paraphrase_predictions"]
        if alone:
            for paraphrase, said in zip(row["paraphrases"], alone, strict=True):
                yield self._row(row, [paraphrase], said)
        else:
            yield self._row(row, row["paraphrases"], row["prediction"])

    def _row(self, row: dict[str, Any], paraphrases: list[str], said: str) -> dict[str, Any]:
        prediction = said.strip().split("\n", 1)[0]
        prompts = [self._prompt(text) for text in paraphrases] if self._prompt else []
        return {
            **{name: row[name] for name in ("method", "relation", "question", "answers", "error")},
            "uuid": row["source_id"] or row["row_id"],
            "paraphrase": next(iter(paraphrases), None),
            "paraphrases": paraphrases,
            "prompt": next(iter(prompts), None),
            "prompts": prompts,
            "prediction": prediction,
            "generation": said,
            "predict_lemma": self._lemmas(prediction),
            "answer_lemmas": row["answers"] and [self._lemmas(answer) for answer in row["answers"]],
        }


def _prompt_maker(run: AnyRecord) -> tuple[Callable[[str], str] | None, str]:
    """Makes the prompt of a paraphrase as the run did; or None, and why that cannot be."""
    from flexray.pipeline.prepare import prompt_builder  # it brings torch

    tree = {"output": "-", "data": {"name": "rows", "files": "-"}, "methods": ["origin"]}
    sections = {name: run.config[name] for name in ("model", "prompt", "generation") if name in run.config}
    try:
        return prompt_builder(parse_config(tree | sections, source="the run's record")).text, ""
    except UserError as e:
        return None, str(e)
