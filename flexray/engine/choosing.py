"""How branches choose their next tokens (see flexray.methods.method.Choice), on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flexray.engine.transfer import to_device
from flexray.methods import DRAWN, Choice, Draw

MOST_LIKELY = 1024


class Fuser:
    """Static tensors that say which of B branches choose together, refreshed in place."""

    def __init__(self, size: int, device: torch.device):
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


@dataclass(frozen=True, slots=True)
class Chances:
    """What B branches draw their next tokens with, float32 [B] each."""

    temperature: Tensor  # 0: the best token
    top_p: Tensor
    uniform: Tensor  # in [0, 1)


def choose_tokens(
    logits_BV: Tensor, choice: Choice, fuser: Fuser | None = None, chances: Chances | None = None
) -> Tensor:
    """The next token of each branch, int64 [B].

    Args:
        fuser: for those that choose together.
        chances: for those that sample.
    """
    if choice == "greedy":
        return logits_BV.argmax(-1)
    scores = logits_BV.float()
    if choice in DRAWN:
        assert chances is not None
        return _sample(scores, chances, nucleus=choice == "nucleus")
    assert fuser is not None
    if choice == "mean":
        fused = fuser.weights @ scores
    else:
        fused = torch.zeros_like(scores).index_reduce_(0, fuser.leaders, scores.softmax(-1), "amax")
    return fused.argmax(-1)[fuser.leaders]  # one choice a group, whatever the order of its sums


def _sample(scores_BV: Tensor, chances: Chances, *, nucleus: bool) -> Tensor:
    """Tokens at their chances: the inverse of the cumulative distribution, in the order of the vocabulary.

    Args:
        nucleus: draw from the likeliest tokens that together reach `top_p` (Holtzman et al. 2020,
            arXiv:1904.09751), and those as likely as the last of them. They are looked for among the
            likeliest MOST_LIKELY, since sorting a whole vocabulary takes longer than a step of the model.
    """
    temperature = torch.where(chances.temperature > 0, chances.temperature, 1.0)
    probs = (scores_BV / temperature[:, None]).softmax(-1)
    if nucleus:
        likely = probs.topk(min(MOST_LIKELY, probs.shape[-1])).values
        kept = (likely.cumsum(-1) - likely < chances.top_p[:, None]).sum(-1, keepdim=True)
        probs = probs * (probs >= likely.gather(-1, (kept - 1).clamp_min(0)))
    reached = probs.cumsum(-1)
    mass = reached[:, -1:]
    below = torch.nextafter(mass, torch.zeros_like(mass))  # rounding up to the mass would find no token
    place = torch.minimum(chances.uniform[:, None] * mass, below)
    drawn = torch.searchsorted(reached, place, right=True)[:, 0]
    return torch.where(chances.temperature > 0, drawn, scores_BV.argmax(-1))


def uniform_numbers(draw: Draw, row_id: str, count: int) -> np.ndarray:
    """The random numbers of a branch, float32 [count] in [0, 1): of its row and draw only, so that neither
    the batch that it is in nor a rerun changes them, nor a version of a library.
    """
    key = f"{draw.seed}\n{draw.number}\n{row_id}".encode()
    words = np.frombuffer(hashlib.shake_256(key).digest(4 * count), dtype="<u4")
    return ((words >> 8) * 2.0**-24).astype(np.float32)
