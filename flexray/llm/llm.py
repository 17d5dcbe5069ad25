"""The class `LLM`: answers rows in this process, without Ray."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress

from flexray.config import RunConfig, parse_config
from flexray.config.data import Fields
from flexray.data.in_memory import fields_of, rows_of
from flexray.errors import ConfigError
from flexray.llm.answers import Answers
from flexray.llm.row_answerer import OnAnswered, RowAnswerer
from flexray.models.hub import download_model, pin_model


class LLM:
    """A LLaMA that answers questions, each asked in several paraphrases.

    Args:
        model: a model folder in the Hugging Face format; or, as "owner/name@revision", a model of the Hugging
            Face hub that is in this machine's cache.
        lora: the folder of a LoRA adapter in PEFT's format, or several, merged into the model in this order.
        dtype: "auto" (bfloat16 on a GPU, float32 on CPUs), "float32", "bfloat16" or "float16".
        device: "auto" (a GPU where torch finds one), "cpu" or "cuda".
        trust_remote_code: run Python code from the tokenizer's folder.
        quantization: "fp8": the decoder's linear layers in 8 bits. None: as they are.
        backend: what computes attention: "flex", "sdpa" or "eager"; if it fails, the next, with the same
            mask.
        strict: raise instead of falling back.
        deterministic: a row's answer depends on the row alone, bit for bit, as by default in a run. All
            batches are then padded to one size, which slows down calls of a few rows.
        max_num_seqs: questions in work at once. None: 2,048 on a GPU, 32 on CPUs.
        max_num_batched_tokens: tokens of a prefill pass. None: 32,768 on a GPU, 2,048 on CPUs; if
            deterministic, 8,192 and 512.
        gpu_memory_utilization: share of the GPU's memory free after loading the weights that the KV cache
            may take.
        tensor_parallel: GPUs of this machine that hold the model together; on CPUs, processes. If one of
            their processes dies, this one ends, too.
        share_prefixes: compute once what the paraphrases of a question begin with alike.
        download: first bring a model that is named into the cache.

    Raises:
        ModelError: a model that flexray cannot run. ConfigError: a setting that cannot be used, or a model
            that the cache does not have or the hub does not give.

    One engine serves all calls with the same prompt, methods and generation: graphs are compiled and the
    context is computed only once.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        lora: str | Path | Sequence[str | Path] = (),
        dtype: str = "auto",
        device: str = "auto",
        trust_remote_code: bool = False,
        quantization: str | None = None,
        backend: str = "flex",
        strict: bool = False,
        deterministic: bool = False,
        max_num_seqs: int | None = None,
        max_num_batched_tokens: int | None = None,
        gpu_memory_utilization: float = 0.9,
        tensor_parallel: int = 1,
        share_prefixes: bool = True,
        download: bool = False,
    ):
        path = os.path.expanduser(model)
        if download:
            download_model(path)
        self._tree: dict[str, Any] = {
            "output": "-",
            "model": {
                "path": pin_model(path),
                "lora": [str(folder) for folder in ([lora] if isinstance(lora, str | Path) else lora)],
                "dtype": dtype,
                "device": device,
                "quantization": quantization,
                "trust_remote_code": trust_remote_code,
            },
            "engine": {
                "backend": backend,
                "strict": strict,
                "deterministic": deterministic,
                "max_num_seqs": max_num_seqs,
                "max_num_batched_tokens": max_num_batched_tokens,
                "gpu_memory_utilization": gpu_memory_utilization,
                "tensor_parallel": tensor_parallel,
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
        few_shots: Sequence[Mapping[str, Any]] = (),
        question_template: str | None = None,
        answer_prefix: str | None = None,
        chat: bool = False,
        max_new_tokens: int = 16,
        stop_at_newline: bool = True,
        stop: str | Sequence[str] = (),
        min_new_tokens: int = 0,
        repetition_penalty: float = 1.0,
        logprobs: int | None = None,
        candidates: Literal["row"] | Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        length_penalty: float = 1.0,
        include_question: bool | None = None,
        fields: Mapping[str, str | None] | None = None,
        progress: bool | None = None,
    ) -> Answers:
        """Answer rows by every method.

        Args:
            rows: dicts, a pandas or Arrow table, or a `datasets.Dataset`. Each has a `question`, and may have
                `paraphrases`, `answers` (accepted ones, for `correct`), `id`, `relation`, `num_manual`,
                `confidences` (if all rows do) and `candidates`.
            methods: kinds of methods, or their settings, as in a recipe.
            instruction, few_shots, question_template, answer_prefix, chat: the prompt, as in a recipe;
                few-shots are dicts of `question` and `answer`.
            max_new_tokens: the most tokens of an answer.
            stop_at_newline: end an answer also at its first line break.
            stop: texts that end an answer, too.
            min_new_tokens: the least tokens of an answer.
            repetition_penalty: above 1, tokens that stand there already are less likely.
            logprobs: tell the log-probability of each token, and of the so many most likely ones; 0: of none
                besides. None: do not.
            candidates: answers to choose among instead of generating: for all rows, for each relation, or
                "row": each row's own.
            length_penalty: a candidate's score is the sum of its log-probabilities by the number of its
                tokens to the power of this.
            include_question: ask the question itself as the first paraphrase. None: if no row has
                paraphrases.
            fields: other names of the rows' fields, such as {"question": "query"}.
            progress: show a progress bar. None: if standard error is a terminal.

        Returns:
            An answer for each row and method. That to a faulty row has an `error`; nothing is raised for it.

        Raises:
            ConfigError: settings that cannot be used. DataError: `rows` is of another type.
        """
        given = rows_of(rows)
        unread = set() if candidates == "row" else {"candidates"}
        if any(row.get("confidences") is None for row in given):
            unread.add("confidences")
        by_name = {name: name for name in Fields.model_fields if name not in unread}
        try:
            names = fields_of(given, Fields.model_validate(by_name | dict(fields or {})))
        except ValidationError as e:
            (fault, *_) = e.errors(include_url=False)
            raise ConfigError(
                f"fields: {'.'.join(map(str, fault['loc']))}: {fault['msg']}. Known: {', '.join(by_name)}."
            ) from e
        if include_question is None:
            include_question = names.paraphrases is None
        prompt = {"instruction": instruction, "few_shots": list(few_shots or ()), "chat": chat}
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
                "generation": {
                    "max_new_tokens": max_new_tokens,
                    "stop_at_newline": stop_at_newline,
                    "stop": [stop] if isinstance(stop, str) else list(stop or ()),
                    "min_new_tokens": min_new_tokens,
                    "repetition_penalty": repetition_penalty,
                    "logprobs": logprobs,
                    "candidates": candidates,
                    "length_penalty": length_penalty,
                },
            }
        )
        with _progress_bar(len(given), progress) as on_answered:
            table = self._answerer.answer(given, config, on_answered)
        return Answers(table, len(config.methods))

    def close(self) -> None:
        """End the other processes of `tensor_parallel`: a process can have one such LLM at a time. They end
        with this process, too."""
        self._answerer.close()

    def _parse(self, tree: dict[str, Any]) -> RunConfig:
        return parse_config(self._tree | tree, source="LLM")


@contextlib.contextmanager
def _progress_bar(rows: int, shown: bool | None) -> Iterator[OnAnswered]:
    """A bar on standard error, removed at the end. shown: None: if standard error is a terminal."""
    console = Console(stderr=True)
    hidden = not (console.is_terminal if shown is None else shown)
    with Progress(console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("answered", total=rows)
        yield lambda done: bar.update(task, completed=done)
