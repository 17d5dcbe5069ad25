"""GPU stage: an actor that holds the engine and answers whole shards."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import torch

from flexray.config import RunConfig
from flexray.engine.checkpoint import load_model
from flexray.engine.engine import Answers, Engine
from flexray.engine.stopping import answer_text
from flexray.pipeline.prepare import PreparedShard
from flexray.types import Generation, Question, ShardSpec


@dataclass(frozen=True, slots=True)
class AnsweredShard:
    """A shard's questions, for each what each method answered, and how the engine fared with it."""

    spec: ShardSpec
    questions: list[Question]
    answers: list[tuple[Answers, ...]]  # [question][method][answer]
    texts: list[tuple[tuple[str, ...], ...]]  # of the same shape
    prompt_tokens: list[int]
    engine_stats: dict[str, Any]
    seconds: float


class Answerer:
    """Holds one engine for as long as its process lives."""

    def __init__(self, config: RunConfig):
        self._config = config
        self._model, self._tokenizer = load_model(
            config.model.path,
            dtype=config.model.dtype,
            device=config.model.device,
            trust_remote_code=config.model.trust_remote_code,
        )
        if self._model.device.type == "cpu":
            # Ray sets OMP_NUM_THREADS to the actor's CPUs, which are kept low so that reading and
            # writing have some too; the actors share the machine
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // config.ray.max_actors))
        self._engine = Engine(self._model, self._tokenizer, config.methods, config.generation, config.engine)

    def answer(self, shard: PreparedShard) -> AnsweredShard:
        """Answer one shard's rows, one for one."""
        start = time.perf_counter()
        before = self._engine.stats.to_dict()
        generated = iter(self._engine.generate([p for p in shard.prompts if p is not None]))
        answers = [
            next(generated) if prompt is not None else self._error(question.error)
            for question, prompt in zip(shard.questions, shard.prompts, strict=True)
        ]
        texts = [tuple(tuple(map(self._text, method)) for method in methods) for methods in answers]
        tokens = [
            0 if p is None else len(p.context) + sum(map(len, p.segments)) + len(p.cue) for p in shard.prompts
        ]
        seconds = time.perf_counter() - start
        stats = {
            **_difference(self._engine.stats.to_dict(), before),
            "mask_cache": {"hits": self._engine.mask_cache.hits, "misses": self._engine.mask_cache.misses},
            "device": _device_name(self._model.device),
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "seconds": round(seconds, 3),
        }
        return AnsweredShard(shard.spec, shard.questions, answers, texts, tokens, stats, seconds)

    def _text(self, generation: Generation) -> str:
        at_newline = self._config.generation.stop_at_newline
        return answer_text(self._tokenizer, generation.token_ids, at_newline=at_newline)

    def _error(self, error: str) -> tuple[Answers, ...]:
        """A row that never reached the engine."""
        requested = self._config.engine.backend
        generation = Generation(finish_reason="error", backend_requested=requested, attempts=0, error=error)
        return ((generation,),) * len(self._config.methods)


def _difference(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """What the engine's counters grew by."""
    return {
        key: _difference(value, before[key]) if isinstance(value, dict) else round(value - before[key], 3)
        for key, value in now.items()
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
