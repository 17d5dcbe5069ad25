"""What generation settings change of logits before a token is chosen, as transformers does."""

from __future__ import annotations

from collections.abc import Sequence as Listed
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from flexray.config import GenerationConfig

if TYPE_CHECKING:
    from flexray.engine.request import Sequence
    from flexray.engine.sequence_table import SequenceTable


class LogitsProcessors:
    """Those that a run asks for; false if there are none."""

    def __init__(self, generation: GenerationConfig, table: SequenceTable):
        self._table = table
        self._min_new_tokens = generation.min_new_tokens
        self._penalty = generation.repetition_penalty

    def __bool__(self) -> bool:
        return self.reads_prompts or self._min_new_tokens > 0

    @property
    def reads_prompts(self) -> bool:
        """Whether they need the ids of prompts."""
        return self._penalty != 1

    def __call__(self, logits_NV: Tensor, rows: Tensor, seen: Tensor | None) -> Tensor:
        """The logits to choose from, float32 [N, V].

        Args:
            rows: int64 [N], in the SequenceTable.
            seen: int64 [N, L], ids of the prompts; see `prompt_ids`.
        """
        table, scores_NV = self._table, logits_NV.float()
        produced = table.produced[rows]
        if seen is not None:
            output = table.output[rows]
            is_old = torch.arange(output.shape[1], device=output.device) < produced[:, None]
            ids = torch.cat([seen, torch.where(is_old, output, seen[:, :1])], -1)
            scores_NV = penalise(scores_NV, ids, self._penalty)
        if self._min_new_tokens:
            too_short = produced < self._min_new_tokens
            scores_NV = scores_NV.masked_fill(table.stop & too_short[:, None], -torch.inf)
        return scores_NV


def penalise(scores_NV: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Scores of the tokens with these ids, int64 [N, L], divided by the penalty if above 0, else multiplied
    (Keskar et al. 2019, arXiv:1909.05858). An id that stands there twice counts once."""
    own = scores_NV.gather(-1, ids)
    return scores_NV.scatter(-1, ids, torch.where(own < 0, own * penalty, own / penalty))


def prompt_ids(groups: Listed[Listed[Sequence]]) -> np.ndarray:
    """The ids of all prompt tokens that any of a group's sequences sees, int64 [G, L]; one with fewer repeats
    its first."""
    found = [sorted(set().union(*(s.request.seen[s] for s in group))) for group in groups]
    most = max(map(len, found))
    return np.asarray([ids + ids[:1] * (most - len(ids)) for ids in found])
