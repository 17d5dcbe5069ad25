"""Answers shards with one engine. Does not depend on Ray."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerBase

from flexray.config import RunConfig
from flexray.config import fault_injection as faults
from flexray.engine.engine import Answers, Engine
from flexray.engine.fallback import is_out_of_memory, is_poisoned
from flexray.engine.generation import Generation
from flexray.engine.parallel_engine import ParallelModel
from flexray.engine.stats import EngineStats
from flexray.engine.stopping_criteria import answer_text
from flexray.errors import RowFault
from flexray.pipeline.counters import add, difference
from flexray.pipeline.crash_tracker import Attempt, RowRange
from flexray.pipeline.shards import AnsweredShard, PreparedShard, answer_lists
from flexray.prompts.candidates import candidates_of
from flexray.prompts.prompt import Prompt

Note = Callable[[Mapping[str, RowRange]], None]


class GeneratedShard:
    """A shard whose tokens are being generated, or are."""

    def __init__(self, shard: PreparedShard, config: RunConfig):
        self.shard = shard
        self.answers = [unanswered(config, error) for error in shard.questions["error"].to_pylist()]
        self.counters = _no_counts()
        self.counted_in = ""
        self.seconds = 0.0  # of the engine's calls
        self.answered_at = time.time()
        self.rounding: dict[str, Any] = {}  # of the engine's thread


class Answerer:
    """Holds one engine until its process ends. The engine is made for the first row that has a prompt, so no
    model is loaded if all rows are faulty."""

    def __init__(
        self,
        config: RunConfig,
        loading: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ):
        """
        Args:
            loading: makes a context in which the engine is made.
        """
        self._config = config
        self._loading = loading
        self._device = torch.device("cpu")  # until there is an engine
        self._dtype: str = config.model.dtype
        self._tokenizer: PreTrainedTokenizerBase | None = None

    @functools.cached_property
    def _engine(self) -> Engine:
        with self._loading():
            return self._load(self._config)

    def _load(self, config: RunConfig) -> Engine:
        ranks = config.engine.tensor_parallel
        loaded = ParallelModel(config.model, ranks, config.plugins)
        model = loaded.model
        if model.device.type == "cpu":
            # Ray sets OMP_NUM_THREADS to the actor's CPUs, a low number that leaves CPUs for prepare and
            # commit tasks. The engine may use more threads; the actors share the machine.
            processes = ranks * (config.ray.max_actors or 1)
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
        engine = loaded.make_engine(config.methods, config.generation, config.engine)
        self._device, self._dtype = model.device, str(model.dtype).removeprefix("torch.")
        self._tokenizer = loaded.tokenizer
        return engine

    @property
    def tokens(self) -> int:
        """Tokens of finished answers since the engine was made. Can be read from another thread."""
        return self._engine.stats.generated_tokens if self.is_loaded else 0

    @property
    def is_loaded(self) -> bool:
        """Whether there is an engine."""
        return "_engine" in vars(self)

    def answer(self, shard: PreparedShard) -> AnsweredShard:
        """Answer the rows of one shard, in order."""
        return self.finish(*self.generate([(shard, untried(shard))]))

    def generate(
        self, shards: Sequence[tuple[PreparedShard, Attempt]], note: Note = lambda ranges: None
    ) -> list[GeneratedShard]:
        """Generate the tokens of several shards, in order, each for `finish`. All shards without a crash are
        in one engine call, so that the device does not idle between them. Each row range of the others gets
        its own call.

        Args:
            note: called with the row ranges by shard id before each engine call, and with {} after it.
        """
        results = [GeneratedShard(shard, self._config) for shard, _ in shards]
        for result, (shard, attempt) in zip(results, shards, strict=True):
            for row in attempt.given_up:
                if shard.prompts[row] is not None:
                    error = _crashed(attempt.crashes)
                    result.answers[row] = unanswered(self._config, error, attempt.crashes)
        work = list(zip(results, (attempt for _, attempt in shards), strict=True))
        together = [(result, rows) for result, a in work if not a.crashes for rows in a.ranges]
        isolated = [[(result, rows)] for result, a in work if a.crashes for rows in a.ranges]
        for call in [together, *isolated]:
            if call:
                note({result.shard.spec.shard_id: rows for result, rows in call})
                self._generate_ranges(call)
                note({})
        if self.is_loaded:
            for result in results:
                result.rounding = self._engine.rounding
        return results

    def _generate_ranges(self, call: list[tuple[GeneratedShard, RowRange]]) -> None:
        """Generate the tokens of row ranges in one engine call."""
        todo: list[tuple[GeneratedShard, int, Prompt]] = []
        for result, rows in call:
            found = [(result, row, prompt) for row in range(*rows) if (prompt := result.shard.prompts[row])]
            if faults.expected():
                ids = " ".join(prompt.row_id for _, _, prompt in found)
                faults.reach("pipeline.answer", shard_id=result.shard.spec.shard_id, row_ids=ids)
            todo += found
        if todo:
            _ = self._engine  # so that the time to load the model is not counted for these rows
        start, before = time.perf_counter(), self._counters()
        generated = self._call_engine([prompt for _, _, prompt in todo]) if todo else []
        for (result, row, prompt), answers in zip(todo, generated, strict=True):
            if prompt.confidences is None:
                answers = self._unweighted(result.shard, row, answers)
            result.answers[row] = answers
        seconds = time.perf_counter() - start
        counted = difference(self._counters(), before)
        first = call[0][0]
        num_rows = sum(end - begin for _, (begin, end) in call)
        first.counters = add(first.counters, counted)  # in one shard only: sums over shards must be right
        for result, (begin, end) in call:
            result.counted_in = "" if result is first else first.shard.spec.shard_id
            result.seconds += seconds * (end - begin) / num_rows
            result.answered_at = time.time()

    def finish(self, result: GeneratedShard) -> AnsweredShard:
        """The answers of a shard, with their texts. Can be called in another thread, while the engine
        generates those of other shards: it leaves the device alone, whose work may be being captured."""
        start = time.perf_counter()
        shard = result.shard
        texts = decode_answers(result.answers, shard.questions, self._tokenizer, self._config)
        stats = {
            **result.counters,
            "counted_in": result.counted_in,
            "process": f"{platform.node()}:{os.getpid()}",
            "device": _device_name(self._device),
            "dtype": self._dtype,
            "rounding": result.rounding,
            "seconds": round(result.seconds, 3),
            "answered_at": round(result.answered_at, 3),
        }
        answers = answer_lists(result.answers, texts)
        seconds = result.seconds + time.perf_counter() - start
        return AnsweredShard(shard.spec, shard.questions, shard.prompt_tokens, answers, stats, seconds)

    def _counters(self) -> dict[str, Any]:
        """All counters since the engine was made."""
        if not self.is_loaded:
            return _no_counts()
        cache = self._engine.mask_cache
        return {**self._engine.stats.to_dict(), "mask_cache": {"hits": cache.hits, "misses": cache.misses}}

    def _call_engine(self, prompts: list[Any]) -> list[tuple[Answers, ...]]:
        try:
            return self._engine.generate(prompts)
        except Exception as error:
            ranks = self._config.engine.tensor_parallel
            if is_poisoned(error) or (ranks > 1 and is_out_of_memory(error)):
                # the device no longer works in this process, and Ray keeps an actor that only raises; ranks
                # cannot agree to halve their sizes, but after a crash the shard comes again in smaller parts
                print(f"the device has failed, this actor exits: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            raise

    def _unweighted(self, shard: PreparedShard, row: int, found: tuple[Answers, ...]) -> tuple[Answers, ...]:
        """The answers to a row without confidences: those of the weighted methods are replaced by errors."""
        if not any(method.needs_confidences for method in self._engine.methods):
            return found
        fault = unanswered(self._config, str(_no_confidences(shard.questions, row)))
        pairs = zip(self._engine.methods, found, fault, strict=True)
        return tuple(none if method.needs_confidences else some for method, some, none in pairs)


def _no_counts() -> dict[str, Any]:
    """The counters of an engine that has done nothing."""
    return {**EngineStats.zero(torch.device("cpu")).to_dict(), "mask_cache": {"hits": 0, "misses": 0}}


def unanswered(config: RunConfig, error: str, attempts: int = 0) -> tuple[Answers, ...]:
    """The error answers of all methods to a row that the engine does not answer."""
    requested = config.engine.backend
    generation = Generation(
        finish_reason="error", backend_requested=requested, attempts=attempts, error=error
    )
    return ((generation,),) * len(config.methods)


def decode_answers(
    answers: Sequence[tuple[Answers, ...]],
    questions: pa.Table,
    tokenizer: PreTrainedTokenizerBase | None,
    config: RunConfig,
) -> list[tuple[tuple[str, ...], ...]]:
    """The text of each answer, in the same shape; "" if it has no tokens.

    Args:
        questions: those answered, with columns of QUESTION_SCHEMA.
        tokenizer: None if no answer has tokens.
    """
    rules = config.generation

    def text(generation: Generation, candidates: tuple[str, ...]) -> str:
        if generation.candidate is not None:
            return candidates[generation.candidate].strip()
        if tokenizer is None or not generation.token_ids:
            return ""
        return answer_text(tokenizer, generation.token_ids, at_newline=rules.stop_at_newline, stop=rules.stop)

    own, relations = (questions[name].to_pylist() for name in ("candidates", "relation"))
    given = [candidates_of(mine, relation, rules) for mine, relation in zip(own, relations, strict=True)]
    return [
        tuple(tuple(text(said, candidates) for said in method) for method in methods)
        for methods, candidates in zip(answers, given, strict=True)
    ]


def untried(shard: PreparedShard) -> Attempt:
    """The first attempt of a shard: all rows at once."""
    return Attempt(ranges=[(0, len(shard.questions))], given_up=frozenset(), crashes=0)


def _crashed(crashes: int) -> str:
    return (
        f"the process that answered this row crashed each time ({crashes} crashes in its shard), so the row "
        "is not tried again in this run. `flexray retry-errors` tries it again."
    )


def _no_confidences(questions: pa.Table, row: int) -> RowFault:
    """The fault of a row that the weighted methods cannot answer, because it has no confidences."""
    return RowFault(
        questions["source_file"][row].as_py(),
        questions["source_row"][row].as_py(),
        "confidences",
        None,
        "the weighted methods need the confidence of each paraphrase",
        "Give each row a number from 0 to 1 for each paraphrase and map data.fields.confidences, or leave "
        "those methods out.",
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
