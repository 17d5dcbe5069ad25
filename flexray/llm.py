"""Answers rows in this process, without Ray: a model, rows in, answers out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import pyarrow as pa
from rich.console import Console
from rich.progress import Progress

from flexray.config import EngineConfig, GenerationConfig, MethodConfig, PromptConfig, RunConfig, parse_config
from flexray.config.data import Fields
from flexray.data.question import Question, ShardSpec
from flexray.data.rows import fields_of, rows_of, to_questions
from flexray.engine.engine import Engine
from flexray.engine.generation import Generation
from flexray.engine.stopping_criteria import answer_text
from flexray.errors import RowFault
from flexray.evaluation import to_table
from flexray.models.checkpoint import check_checkpoint, load_model
from flexray.pipeline.shards import AnsweredShard
from flexray.prompts import PromptBuilder
from flexray.prompts.prompt import Prompt

if TYPE_CHECKING:
    import pandas
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

OnAnswered = Callable[[int], None]
"""Told how many rows have been answered so far."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What one method says to one row. The fields are columns of the output; see the README."""

    row: int
    """Its index in the rows that were asked."""
    row_id: str
    method: str
    text: str
    """The answer; "" for an error row."""
    token_ids: tuple[int, ...]
    correct: bool | None
    """By exact match; None: nothing to score against, or an error row."""
    paraphrase_predictions: tuple[str, ...]
    samples: tuple[str, ...]
    finish_reason: str
    backend_used: str
    fallback_reason: str
    error: str
    """ "" for a good row."""


class Answers(Sequence[Answer]):
    """One answer a row and method: those of the first row by all methods, then those of the second."""

    def __init__(self, table: pa.Table, num_methods: int):
        self._table, self._num_methods = table, num_methods

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Answer: ...
    @overload
    def __getitem__(self, index: slice) -> list[Answer]: ...
    def __getitem__(self, index: int | slice) -> Answer | list[Answer]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"answer {index} of {len(self)}")
        row = self._table.slice(index, 1).to_pylist()[0]
        names = {field.name for field in dataclasses.fields(Answer)} - {"row", "text"}
        values: dict[str, Any] = {name: tuple(v) if isinstance(v := row[name], list) else v for name in names}
        return Answer(row=index // self._num_methods, text=row["prediction"], **values)

    def __iter__(self) -> Iterator[Answer]:
        return (self[i] for i in range(len(self)))

    def to_arrow(self) -> pa.Table:
        """All columns of the output, a row an answer."""
        return self._table

    def to_pandas(self) -> pandas.DataFrame:
        """The same as a DataFrame. Raises ImportError if pandas is not installed."""
        return self._table.to_pandas()


class LLM:
    """A LLaMA that answers questions, each asked in several paraphrases.

    Args:
        model: a model folder in the Hugging Face format.
        dtype: "auto" (bfloat16 on a GPU, float32 on CPUs), "float32", "bfloat16" or "float16".
        device: "auto" (a GPU where torch finds one), "cpu" or "cuda".
        trust_remote_code: run Python code from the tokenizer's folder.
        backend: what computes attention: "flex", "sdpa" or "eager"; if it fails, the next, with the same
        mask. strict: raise instead of falling back. max_num_seqs: questions worked on at once. None: 512 on
        a GPU, 32 on CPUs. max_num_batched_tokens: tokens of one prefill pass. None: 32,768 on a GPU, 2,048
        on CPUs. gpu_memory_utilization: share of the GPU's memory free beside the weights that the KV cache
        may take. share_prefixes: compute once what the paraphrases of a question begin with alike.

    Raises:
        ModelError: a folder that flexray cannot run. ConfigError: a setting that cannot be used.

    One engine serves call after call: graphs are compiled and the context is computed once, as long as
    prompt, methods and generation stay the same.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        dtype: str = "auto",
        device: str = "auto",
        trust_remote_code: bool = False,
        backend: str = "flex",
        strict: bool = False,
        max_num_seqs: int | None = None,
        max_num_batched_tokens: int | None = None,
        gpu_memory_utilization: float = 0.9,
        share_prefixes: bool = True,
    ):
        self._tree: dict[str, Any] = {
            "output": "-",
            "model": {
                "path": str(model),
                "dtype": dtype,
                "device": device,
                "trust_remote_code": trust_remote_code,
            },
            "engine": {
                "backend": backend,
                "strict": strict,
                "max_num_seqs": max_num_seqs,
                "max_num_batched_tokens": max_num_batched_tokens,
                "gpu_memory_utilization": gpu_memory_utilization,
                "share_prefixes": share_prefixes,
            },
        }
        config = self._parse({"data": {"name": "rows", "files": "-", "include_question": True}})
        self._answerer = RowAnswerer(config)

    def answer(
        self,
        rows: Any,
        methods: str | Sequence[str | Mapping[str, Any]] = ("attention",),
        *,
        instruction: str = "",
        few_shots: Sequence[Mapping[str, str]] = (),
        question_template: str | None = None,
        answer_prefix: str | None = None,
        chat: bool = False,
        max_new_tokens: int = 16,
        stop_at_newline: bool = True,
        include_question: bool | None = None,
        fields: Mapping[str, str | None] | None = None,
        progress: bool | None = None,
    ) -> Answers:
        """Answer rows by every method.

        Args:
            rows: dicts, a pandas or Arrow table, or a `datasets.Dataset`. Each has a `question`, and may have
                `paraphrases`, `answers` (accepted ones, for `correct`), `id`, `relation`, `num_manual` and
                `confidences`.
            methods: kinds of methods, or their settings, as in a recipe.
            instruction, few_shots, question_template, answer_prefix, chat: the prompt, as in a recipe;
                few-shots are dicts of `question` and `answer`.
            max_new_tokens: tokens of an answer at most.
            stop_at_newline: end an answer at its first line break, too.
            include_question: ask the question itself as the first paraphrase. None: if no row has
            paraphrases. fields: other names of the rows' fields, such as {"question": "query"}. progress:
            show a progress bar while it works. None: if standard error is a terminal.

        Returns:
            One answer a row and method. A faulty row has an answer with `error`; nothing is raised for it.

        Raises:
            ConfigError: settings that cannot be used. DataError: `rows` is nothing of the above.
        """
        given = rows_of(rows)
        names = fields_of(given, Fields.model_validate(fields or {}))
        if include_question is None:
            include_question = names.paraphrases is None
        prompt = {"instruction": instruction, "few_shots": list(few_shots), "chat": chat}
        prompt |= {} if question_template is None else {"question_template": question_template}
        prompt |= {} if answer_prefix is None else {"answer_prefix": answer_prefix}
        config = self._parse(
            {
                "data": {
                    "name": "rows",
                    "files": "-",
                    "fields": names.model_dump(),
                    "include_question": include_question,
                },
                "prompt": prompt,
                "methods": [methods] if isinstance(methods, str) else list(methods),
                "generation": {"max_new_tokens": max_new_tokens, "stop_at_newline": stop_at_newline},
            }
        )
        with _progress_bar(len(given), progress) as on_answered:
            table = self._answerer.answer(given, config, on_answered)
        return Answers(table, len(config.methods))

    def _parse(self, tree: dict[str, Any]) -> RunConfig:
        return parse_config(self._tree | tree, source="LLM")


class RowAnswerer:
    """A loaded model, and the engine of the settings that it was last asked with."""

    def __init__(self, config: RunConfig):
        self._shape = check_checkpoint(config.model.path)
        self._has_tokenizer_config = (Path(config.model.path) / "tokenizer_config.json").is_file()
        self._model: LlamaForCausalLM
        self._tokenizer: PreTrainedTokenizerBase
        self._model, self._tokenizer = load_model(
            config.model.path,
            dtype=config.model.dtype,
            device=config.model.device,
            trust_remote_code=config.model.trust_remote_code,
        )
        self._settings: object = None
        self._engine: Engine
        self._builder: PromptBuilder

    def answer(
        self, rows: Sequence[Mapping[str, Any]], config: RunConfig, on_answered: OnAnswered = lambda n: None
    ) -> pa.Table:
        """The output's rows, ROW_SCHEMA: for each row in turn one by every method."""
        self._use(config.prompt, config.methods, config.generation, config.engine)
        questions = to_questions(rows, config.data)
        prompts: dict[int, Prompt] = {}
        for index, question in enumerate(questions):
            if question.error:
                continue
            try:
                prompts[index] = self._builder.build(question)
            except RowFault as fault:
                questions[index] = dataclasses.replace(question, error=str(fault))
        answers = [self._errors(question, config) for question in questions]
        indices = list(prompts)
        for done, (number, said) in enumerate(self._engine.stream(list(prompts.values())), start=1):
            answers[indices[number]] = said
            on_answered(done + len(questions) - len(prompts))
        spec = ShardSpec(shard_id="", file="", format="jsonl", first_row=1, num_rows=len(questions))
        texts = [tuple(tuple(self._text(g, config) for g in method) for method in said) for said in answers]
        tokens = [_length(prompts[i]) if i in prompts else 0 for i in range(len(questions))]
        shard = AnsweredShard(spec, questions, answers, texts, tokens, {}, 0.0)
        table = to_table(shard, tuple(method.name for method in config.methods))
        n, m = len(questions), len(config.methods)  # from method by method to row by row
        return table.take([method * n + row for row in range(n) for method in range(m)])

    def _use(
        self,
        prompt: PromptConfig,
        methods: tuple[MethodConfig, ...],
        generation: GenerationConfig,
        engine: EngineConfig,
    ) -> None:
        settings = (prompt, methods, generation, engine)
        if settings == self._settings:
            return
        builder = PromptBuilder(
            self._tokenizer,
            prompt,
            methods,
            generation,
            self._shape.max_position_embeddings,
            vocab_size=self._shape.vocab_size,
            named_bos=None if self._has_tokenizer_config else self._shape.bos_token_id,
        )
        if self._settings is not None:
            self._engine.reset()  # its KV cache makes room for the next one's
        self._settings = None
        self._engine = Engine(self._model, self._tokenizer, methods, generation, engine)
        self._builder, self._settings = builder, settings

    def _errors(self, question: Question, config: RunConfig) -> tuple[tuple[Generation, ...], ...]:
        failed = Generation(
            finish_reason="error", backend_requested=config.engine.backend, attempts=0, error=question.error
        )
        return ((failed,),) * len(config.methods)

    def _text(self, generation: Generation, config: RunConfig) -> str:
        if not generation.token_ids:
            return ""
        at_newline = config.generation.stop_at_newline
        return answer_text(self._tokenizer, generation.token_ids, at_newline=at_newline)


def _length(prompt: Prompt) -> int:
    return len(prompt.context) + sum(map(len, prompt.segments)) + len(prompt.answer_prefix)


@contextlib.contextmanager
def _progress_bar(rows: int, shown: bool | None) -> Iterator[OnAnswered]:
    """A bar on standard error, gone when the work is done. None: if standard error is a terminal."""
    console = Console(stderr=True)
    if not (console.is_terminal if shown is None else shown):
        yield lambda done: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("answered", total=rows)
        yield lambda done: bar.update(task, completed=done)
