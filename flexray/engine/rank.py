"""One rank of tensor parallelism beside rank 0: its part of the model, and the whole engine on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from flexray.config import EngineConfig, GenerationConfig, MethodConfig, ModelConfig
from flexray.config import fault_injection as faults
from flexray.config.plugins import load_plugins
from flexray.engine.engine import Engine
from flexray.engine.garbage import freeze
from flexray.engine.parallel_engine import Digest, connect, load_part
from flexray.models.all_reduce import RankGroup, join_ranks, leave_ranks
from flexray.prompts.prompt import Prompt


class Rank:
    """One rank's part of the model and its engine. Rank 0 calls its methods, in its own order."""

    def __init__(self, rank: int, ranks: int):
        self.rank, self.ranks = rank, ranks
        self._group: RankGroup
        self._engine: Engine | None = None

    def load(self, config: ModelConfig, plugins: Sequence[str]) -> str:
        """Load this rank's part of the model; returns the name of its device."""
        load_plugins(plugins)
        self._quantization = config.quantization
        self._model, self._tokenizer, name = load_part(config, self.rank, self.ranks)
        return name

    def join(self, port: int) -> None:
        """Join the other ranks, at rank 0's store."""
        self._group = join_ranks(self.rank, self.ranks, connect(port), self._model.device)

    def make_engine(
        self, methods: Sequence[MethodConfig], generation: GenerationConfig, config: EngineConfig
    ) -> None:
        """Make an engine in place of the one before."""
        if self._engine is not None:
            self._engine.reset()
        self._engine = Engine(
            self._model, self._tokenizer, methods, generation, config, self._quantization, self._group
        )

    def answer(self, prompts: Sequence[Prompt], threads: int) -> str:
        """Answer prompts as rank 0 does.

        Args:
            threads: of rank 0: products on a CPU are rounded by their number.

        Returns:
            The digest of the answers, which has to be that of rank 0.
        """
        assert self._engine is not None
        if self._model.device.type == "cpu" and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        faults.reach("engine.rank", rank=self.rank)
        digest = Digest()
        for index, answers in self._engine.stream(prompts):
            digest.add(index, answers)
        freeze()
        return digest.value

    def leave(self) -> None:
        """Leave the group, as rank 0 does."""
        if self._engine is not None:
            self._engine.reset()
        leave_ranks()
