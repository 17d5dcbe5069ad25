"""The CPU stage before the engine: read the rows of a shard, check and tokenise them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from flexray.config import RunConfig
from flexray.data.plan_rows import read_planned, to_questions
from flexray.data.question import Question, ShardSpec
from flexray.errors import RowFault
from flexray.models.checkpoint import check_checkpoint, load_tokenizer
from flexray.models.hub import model_folder
from flexray.pipeline.shards import QUESTION_SCHEMA, PreparedShard
from flexray.prompts import PromptBuilder
from flexray.prompts.prompt import Prompt

if TYPE_CHECKING:  # takes seconds to import
    from transformers import PreTrainedTokenizerBase


def prepare_shard(spec: ShardSpec, config: RunConfig, only: frozenset[str] | None = None) -> PreparedShard:
    """Read and tokenise a shard. A faulty row becomes an error row; the other rows are answered.

    Args:
        only: the row ids that are prepared. None: all.
    """
    table, data = read_planned(spec), config.data
    if only is not None:
        table = table.filter(pc.is_in(table["row_id"], pa.array(sorted(only), pa.string())))
    questions, prompts = build_prompts(
        to_questions(table, dataset=data.name, split=data.split), prompt_builder(config)
    )
    columns = {name: table[name] for name in table.column_names if name in QUESTION_SCHEMA.names} | {
        "dataset": pa.repeat(data.name, table.num_rows),
        "split": pa.repeat(data.split, table.num_rows),
        "error": pa.array([question.error for question in questions], pa.string()),
    }
    return PreparedShard(spec, pa.table(columns, schema=QUESTION_SCHEMA), prompts)


def build_prompts(
    asked: Iterable[Question], builder: PromptBuilder
) -> tuple[list[Question], list[Prompt | None]]:
    """The questions, and a prompt for each one without an error. A question whose prompt cannot be built gets
    an error."""
    questions: list[Question] = []
    prompts: list[Prompt | None] = []
    for question in asked:
        prompt = None
        if not question.error:
            try:
                prompt = builder.build(question)
            except RowFault as fault:
                question = dataclasses.replace(question, error=str(fault))
        questions.append(question)
        prompts.append(prompt)
    return questions, prompts


def prompt_builder(config: RunConfig) -> PromptBuilder:
    """The prompt builder of a run, made once in each process: loading a tokenizer takes almost a second.

    Raises:
        ModelError: the model folder cannot be used. ConfigError: as `PromptBuilder`.
    """
    return _builder(config.model_dump_json())


@functools.lru_cache(maxsize=1)
def _builder(config_json: str) -> PromptBuilder:
    config = RunConfig.model_validate_json(config_json)
    return make_prompt_builder(
        config, load_tokenizer(config.model.path, trust_remote_code=config.model.trust_remote_code)
    )


def make_prompt_builder(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> PromptBuilder:
    """The prompt builder for a model folder and its loaded tokenizer. Raises errors as `prompt_builder`."""
    model = check_checkpoint(config.model.path)
    says_which = (model_folder(config.model.path) / "tokenizer_config.json").is_file()
    return PromptBuilder(
        tokenizer,
        config.prompt,
        config.methods,
        config.generation,
        model.max_position_embeddings,
        vocab_size=model.vocab_size,
        named_bos=None if says_which else model.bos_token_id,
    )
