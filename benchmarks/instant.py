"""An engine that answers at once, so that all that is around the engine can be measured without a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

from flexray.config import RunConfig
from flexray.engine.engine import Answers
from flexray.engine.generation import Generation
from flexray.engine.stats import EngineStats
from flexray.methods import make_methods
from flexray.models.checkpoint import load_tokenizer
from flexray.pipeline.answer import Answerer
from flexray.pipeline.answer_actor import AnswerActor
from flexray.prompts.prompt import Prompt


class InstantEngine:
    """Stands in for `Engine` behind an Answerer: each answer is the same tokens, found at once."""

    def __init__(self, config: RunConfig):
        self.methods = make_methods(config.methods)
        self.stats = EngineStats.zero(torch.device("cpu"))
        self.mask_cache = SimpleNamespace(hits=0, misses=0)
        self.rounding: dict[str, Any] = {}
        tokens = tuple(range(1000, 1000 + config.generation.max_new_tokens))
        self._answer = Generation(
            token_ids=tokens, finish_reason="length", backend_requested="flex", backend_used="flex"
        )

    def generate(self, prompts: Sequence[Prompt]) -> list[tuple[Answers, ...]]:
        """One answer to each prompt by each method."""
        self.stats.generated_tokens += len(prompts) * len(self.methods) * len(self._answer.token_ids)
        return [((self._answer,),) * len(self.methods) for _ in prompts]


class InstantAnswerer(Answerer):
    """An Answerer with that engine; all else is as it is."""

    def _load(self, config: RunConfig) -> Any:
        self._tokenizer = load_tokenizer(config.model.path)
        return InstantEngine(config)


class InstantActor(AnswerActor):
    """The actor of it."""

    def _make_answerer(self, config: RunConfig) -> Answerer:
        return InstantAnswerer(config, self._loading)
