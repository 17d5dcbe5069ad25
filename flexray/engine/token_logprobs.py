"""Log-probabilities of the tokens that were chosen, and of the most likely ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flexray.engine.generation import Logprobs


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Of one step of B sequences. k: the most likely tokens that are kept."""

    chosen: Tensor  # float32 [B]
    top_token_ids: Tensor  # int64 [B, k], the best first
    top: Tensor  # float32 [B, k]

    def of(self, which: Tensor | slice) -> TokenLogprobs:
        """Those of some of the sequences."""
        return TokenLogprobs(self.chosen[which], self.top_token_ids[which], self.top[which])

    def zeros(self, count: int) -> TokenLogprobs:
        """Room for those of `count` sequences."""
        parts = (self.chosen, self.top_token_ids, self.top)
        return TokenLogprobs(*(part.new_zeros((count, *part.shape[1:])) for part in parts))

    def put(self, which: Tensor, some: TokenLogprobs) -> None:
        """Write those of some of the sequences."""
        self.chosen[which], self.top_token_ids[which] = some.chosen, some.top_token_ids
        self.top[which] = some.top


def token_logprobs(scores_BV: Tensor, token_ids: Tensor, count: int) -> TokenLogprobs:
    """The log-softmax of scores at the chosen tokens, int64 [B], and at the `count` best."""
    logprobs_BV = scores_BV.float().log_softmax(-1)
    best = logprobs_BV.topk(min(count, logprobs_BV.shape[-1]))
    chosen = logprobs_BV.gather(-1, token_ids[:, None])[:, 0]
    return TokenLogprobs(chosen, best.indices, best.values)


class LogprobsTable:
    """Of each row of a SequenceTable those of its tokens so far.

    Args:
        rows: with the one for padding.
        count: k, of the most likely tokens.
    """

    def __init__(self, rows: int, max_new_tokens: int, count: int, device: torch.device):
        shape = (rows, max_new_tokens)
        self.chosen = torch.zeros(shape, dtype=torch.float32, device=device)
        self.top_token_ids = torch.zeros((*shape, count), dtype=torch.int64, device=device)
        self.top = torch.zeros((*shape, count), dtype=torch.float32, device=device)

    def append(self, rows: Tensor, places: Tensor, going: Tensor, new: TokenLogprobs) -> None:
        """Write those of a step.

        Args:
            places: int64 [B], of the tokens in their answers.
            going: bool [B]; the others stay as they are.
        """
        self.chosen[rows, places] = torch.where(going, new.chosen, self.chosen[rows, places])
        for held, values in ((self.top_token_ids, new.top_token_ids), (self.top, new.top)):
            held[rows, places] = torch.where(going[:, None], values, held[rows, places])

    def rows(self, rows: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of some rows, int64 [B], those of the first so many tokens: of the chosen ones [B, count]; of the
        most likely ones ids and log-probabilities, [B, count, k]."""
        return self.chosen[rows, :count], self.top_token_ids[rows, :count], self.top[rows, :count]


def read_logprobs(rows: Sequence[Tensor], row: int, count: int) -> Logprobs:
    """Those of the first so many tokens of one row, from copies of what `LogprobsTable.rows` returned."""
    chosen, top_token_ids, top = (column[row, :count].tolist() for column in rows)
    return Logprobs(tuple(chosen), tuple(map(tuple, top_token_ids)), tuple(map(tuple, top)))
