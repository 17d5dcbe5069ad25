"""Adaptive parallel encoding (Yang et al. 2025, arXiv:2502.05431): how answers attend to paraphrases.

A query attends to paraphrases C at a temperature T, and to the rest O as ever. The two outputs are merged,
the log of the sum of C's exponentiated scores scaled by S and T:

    L_C = log sum exp(s_j / T) over C        L_O = log sum exp(s_j) over O
    out = w o_C + (1 - w) o_O                w = sigmoid(S T L_C - L_O)

That is one softmax over all keys, whose scores for C are s_j / T + (S T - 1) L_C: so it takes the log of the
sum first, and then one pass of attention with a score_mod. A query has 1 / T - 1 and S T - 1 in its tables: 0
for those that are not of an answer, whose scores stay as they are, bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flexray.masks.visibility import KeyTables, QueryTables, ScoreMod, is_of_paraphrase


@dataclass(frozen=True, slots=True)
class AdaptiveTables:
    """What the score_mods of adaptive parallel encoding read."""

    queries: QueryTables
    keys: KeyTables

    def of_paraphrases(self, others: ScoreMod | None) -> ScoreMod:
        """The scores that L_C is of: against paraphrases, at their temperature; minus infinity for the rest.

        Args:
            others: what is done to all scores besides.
        """
        k_first, at_temperature = self.keys.first, self._at_temperature(others)

        def only_those(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
            found = at_temperature(score, b, h, q, kv)
            return torch.where(is_of_paraphrase(k_first[kv]), found, -math.inf)

        return only_those

    def scaled(self, others: ScoreMod | None, log_sums: Tensor) -> ScoreMod:
        """The scores of the one softmax.

        Args:
            others: as for `of_paraphrases`.
            log_sums: L_C, float32 [B, H, T].
        """
        k_first, at_temperature = self.keys.first, self._at_temperature(others)
        power = self.queries.power[:, None]
        added = torch.where(power == 0, 0.0, power * log_sums)  # L_C may be minus infinity

        def scale(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
            found = at_temperature(score, b, h, q, kv)
            return found + torch.where(is_of_paraphrase(k_first[kv]), added[b, h, q], 0.0)

        return scale

    def _at_temperature(self, others: ScoreMod | None) -> ScoreMod:
        k_first, q_sharpness = self.keys.first, self.queries.sharpness

        def sharpen(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
            found = score + score * torch.where(is_of_paraphrase(k_first[kv]), q_sharpness[b, q], 0.0)
            return found if others is None else others(found, b, h, q, kv)

        return sharpen
