"""Branches that choose each token together (see flexray.methods.method.Fusion), on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from flexray.engine.transfer import to_device
from flexray.methods import Fusion


class Fuser:
    """Static tensors that say which of B branches choose together, refreshed in place."""

    def __init__(self, fusion: Fusion, size: int, device: torch.device):
        self.fusion = fusion
        self.leaders = torch.arange(size, device=device)  # [B], the first branch of each one's group
        self.weights = torch.eye(size, device=device)  # [B, B]: row of a leader, weights of its group

    def choose(self, groups: Sequence[int], weights: Sequence[float]) -> None:
        """Which branches are together, int [n] with n <= B, consecutive ones of equal number; and their
        weights, which sum to 1 in each group. Further ones are alone."""
        size = len(self.leaders)
        leaders, table = np.arange(size), np.eye(size, dtype=np.float32)
        n = len(groups)
        _, first, inverse = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
        leaders[:n] = first[inverse]
        table[:n, :n] = 0
        table[leaders[:n], np.arange(n)] = weights
        self.leaders.copy_(to_device(leaders, self.leaders.device))
        self.weights.copy_(to_device(table, self.weights.device))


def choose_tokens(logits_BV: Tensor, fuser: Fuser | None) -> Tensor:
    """The next token of each branch, int64 [B]: the best of its logits, or of its group's fused ones."""
    if fuser is None:
        return logits_BV.argmax(-1)
    scores = logits_BV.float()
    if fuser.fusion == "mean":
        fused = fuser.weights @ scores
    else:
        fused = torch.zeros_like(scores).index_reduce_(0, fuser.leaders, scores.softmax(-1), "amax")
    return fused.argmax(-1)[fuser.leaders]  # one choice a group, whatever the order of its sums
