"""Answers rows that are in memory with one loaded model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from flexray.config import RunConfig
from flexray.data.in_memory import to_questions
from flexray.data.question import ShardSpec
from flexray.engine.engine import Engine
from flexray.engine.parallel_engine import ParallelModel
from flexray.evaluation import to_table
from flexray.evaluation.output_rows import check_match
from flexray.pipeline.answer import decode_answers, unanswered
from flexray.pipeline.prepare import build_prompts, make_prompt_builder
from flexray.pipeline.shards import AnsweredShard, PreparedShard, answer_lists, question_table
from flexray.prompts import PromptBuilder

OnAnswered = Callable[[int], None]
"""Called with the number of rows answered so far."""


class RowAnswerer:
    """A loaded model, with an engine for the settings of the last call. Calls from several threads take
    turns."""

    def __init__(self, config: RunConfig):
        self._loaded = ParallelModel(config.model, config.engine.tensor_parallel, config.plugins)
        self._tokenizer = self._loaded.tokenizer
        self._settings: object = None
        self._lock = threading.Lock()
        self._engine: Engine
        self._builder: PromptBuilder

    def answer(
        self, rows: Sequence[Mapping[str, Any]], config: RunConfig, on_answered: OnAnswered = lambda n: None
    ) -> pa.Table:
        """Rows of ROW_SCHEMA: for each row in turn one by every method."""
        with self._lock:
            return self._answer(rows, config, on_answered)

    def _answer(
        self, rows: Sequence[Mapping[str, Any]], config: RunConfig, on_answered: OnAnswered
    ) -> pa.Table:
        self._use(config)
        n, m = len(rows), len(config.methods)
        spec = ShardSpec(shard_id="", file="", row_group=0, num_rows=n, methods=())
        questions, built = build_prompts(to_questions(rows, config.data), self._builder)
        shard = PreparedShard(spec, question_table(questions), built)
        answers = [unanswered(config, question.error) for question in questions]
        prompts = {row: prompt for row, prompt in enumerate(built) if prompt is not None}
        rows_asked = list(prompts)
        for done, (number, said) in enumerate(self._engine.stream(list(prompts.values())), start=1):
            answers[rows_asked[number]] = said
            on_answered(done + n - len(prompts))
        texts = decode_answers(answers, shard.questions, self._tokenizer, config)
        said = answer_lists(answers, texts)
        answered = AnsweredShard(spec, shard.questions, shard.prompt_tokens, said, {}, 0.0)
        table = to_table(answered, tuple(method.name for method in config.methods))
        # from method by method to row by row
        places = [method * n + row for row in range(n) for method in range(m)]
        return table.take(pa.array(places, pa.int64()))

    def close(self) -> None:
        """End the other ranks' processes, if there are any."""
        self._loaded.close()

    def _use(self, config: RunConfig) -> None:
        settings = (config.prompt, config.methods, config.generation, config.engine)
        if settings == self._settings:
            return
        check_match(config.methods)
        builder = make_prompt_builder(config, self._tokenizer)
        if self._settings is not None:
            self._engine.reset()  # frees its KV cache for the next engine
        self._settings = None
        self._engine = self._loaded.make_engine(config.methods, config.generation, config.engine)
        self._builder, self._settings = builder, settings
