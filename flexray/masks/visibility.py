"""The one rule of who sees whom, as FlexAttention's mask_mod and score_mod.

Every backend, layout, method and phase uses these two functions; only the tables differ. The tables are
tensors, so a new batch brings new values and not new code: a closure of the same factory over other tensors
compiles nothing.

Worked example, a context `c`, paraphrases `p` and `q q`, an answer prefix `a` (rows: queries, columns: keys):

        c p q q a
    c   x
    p   x x
    q   x   x
    q   x   x x
    a   x x x x x
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from flexray.masks.layout import ALL_MEMBERS, FIRST_ANSWER, NUM_BIASES
from flexray.masks.shared_context import CONTEXT_ID, HEAD_ID

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
Bias = Literal["copies", "all"]
"""What is added to scores: see `make_score_mod`."""

_LAST_ID = 2**31 - 1  # the context's parts belong to all segments from their own id on


@dataclass(frozen=True, slots=True)
class QueryTables:
    """What each query may see. All [B, T]: batch rows by query tokens. Segment ids: flexray.masks.layout."""

    visible_first: Tensor  # int32, segment ids of the first
    visible_last: Tensor  # int32, and of the last of the paraphrases that it sees
    own: Tensor  # int32, its own segment id
    members: Tensor  # int64, a bit for each paraphrase that it sees, by segment modulo 64
    causal_index: Tensor  # int32
    context_bias: Tensor  # float32, added to its scores against the shared context
    log_copies: Tensor  # float32, log of how many paraphrases it sees; 0: one
    paraphrase_bias: Tensor  # float32, added to its scores against paraphrases
    sharpness: Tensor  # float32, 1 / T - 1: these scores are divided by T (see flexray.masks.adaptive)
    power: Tensor  # float32, S T - 1: what of the log of their sum is added to them

    @classmethod
    def zeros(cls, shape: tuple[int, ...], device: torch.device) -> QueryTables:
        """Tables to be filled by `refresh`."""
        first, last, own, causal_index = (
            torch.zeros(shape, dtype=torch.int32, device=device) for _ in range(4)
        )
        members = torch.full(shape, ALL_MEMBERS, dtype=torch.int64, device=device)
        floats = [torch.zeros(shape, dtype=torch.float32, device=device) for _ in range(NUM_BIASES)]
        return cls(first, last, own, members, causal_index, *floats)

    def refresh(
        self,
        visible: Tensor,
        own: Tensor,
        causal_index: Tensor,
        biases: Tensor | None,
        members: Tensor | None = None,
    ) -> None:
        """Fill in place, from integers, of `visible` [2, ...], and floats [NUM_BIASES, ...], that broadcast
        to [B, T]. None: they stay as they are."""
        self.visible_first.copy_(visible[0].expand_as(self.visible_first))
        self.visible_last.copy_(visible[1].expand_as(self.visible_last))
        self.own.copy_(own.expand_as(self.own))
        self.causal_index.copy_(causal_index.expand_as(self.causal_index))
        if members is not None:
            self.members.copy_(members.expand_as(self.members))
        if biases is not None:
            tables = self.context_bias, self.log_copies, self.paraphrase_bias, self.sharpness, self.power
            for table, values in zip(tables, biases, strict=True):
                table.copy_(values.expand_as(table))


@dataclass(frozen=True, slots=True)
class KeyTables:
    """What each slot of the KV cache holds. All [P]."""

    first: Tensor  # int32, segment ids of the first; negative: the shared context
    last: Tensor  # int32, and of the last segment that shares it
    causal_index: Tensor  # int32
    log_copies: Tensor  # float32, log of how many paraphrases share it; of their head, all: infinity

    @classmethod
    def of(cls, first: Tensor, last: Tensor, causal_index: Tensor) -> KeyTables:
        """From int32 [P] each; the context is given to all segments from its own on, whatever its `last`."""
        is_context = first < 0
        copies = torch.where(is_context, 1.0, (last - first + 1).float())
        copies = copies.masked_fill(first == HEAD_ID, math.inf)
        return cls(first, last.masked_fill(is_context, _LAST_ID), causal_index, copies.log())

    def write(self, slots: Tensor, keys: KeyTables) -> None:
        """Say what the slots, int64 [n], hold from now on."""
        self.first[slots], self.last[slots] = keys.first, keys.last
        self.causal_index[slots], self.log_copies[slots] = keys.causal_index, keys.log_copies


def make_visible(queries: QueryTables, keys: KeyTables, *, subsets: bool = False) -> MaskMod:
    """The mask: causal, and (of a paraphrase that it sees, or of its own segment).

    The shared context belongs to all segments of requests, and each of its parts to the parts that see it:
    their queries look for ids up to one of a part. Tokens that paraphrases share belong to a range of
    segments; ranges are nested or disjoint, and the tokens of an inner one come later. So a paraphrase's
    token, which looks for the first of its own segments, sees the tokens on its path from the context, and no
    others. A free slot and padding have segment ids of their own, which no query of a real request looks for.

    Args:
        subsets: whether a query may see some of the paraphrases in its range only: those of its `members`.

    Returns:
        A mask_mod over (batch, head, query index, key index) that returns a bool tensor.
    """
    q_first, q_last, q_own = queries.visible_first, queries.visible_last, queries.own
    q_index, k_first, k_last, k_index = queries.causal_index, keys.first, keys.last, keys.causal_index
    q_members = queries.members if subsets else None

    def visible(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        first = k_first[kv]
        seen = (first <= q_last[b, q]) & (q_first[b, q] <= k_last[kv])
        if q_members is not None:
            seen = seen & ((((q_members[b, q] >> (first & 63)) & 1) == 1) | (first < 0))
        return (seen | (first == q_own[b, q])) & (k_index[kv] <= q_index[b, q])

    return visible


def make_score_mod(queries: QueryTables, keys: KeyTables, bias: Bias) -> ScoreMod:
    """The score_mod: what several paraphrases share weighs as much as its copies would, for a query that sees
    all of them; and with "all", context and paraphrases weigh more or less (see `AttentionScope`)."""
    q_copies, q_context, q_paraphrase = queries.log_copies, queries.context_bias, queries.paraphrase_bias
    k_first, k_copies = keys.first, keys.log_copies

    def add_copies(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return score + torch.minimum(k_copies[kv], q_copies[b, q])

    def add_all(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        first = k_first[kv]
        on_paraphrase = torch.where(is_of_paraphrase(first), q_paraphrase[b, q], 0.0)
        own = torch.where(first <= CONTEXT_ID, q_context[b, q], on_paraphrase)
        return add_copies(score, b, h, q, kv) + own

    return add_copies if bias == "copies" else add_all


def is_of_paraphrase(first: Tensor) -> Tensor:
    """Whether keys, by the id of their first segment, are tokens of paraphrases, or of the head of all."""
    return ((first & FIRST_ANSWER) == 0) | (first == HEAD_ID)


def dense_mask(queries: QueryTables, keys: KeyTables, slots_BL: Tensor) -> Tensor:
    """The same mask as a dense tensor, over chosen slots of the KV cache.

    Args:
        slots_BL: int64 [B, L], the slots each batch row may look at.

    Returns:
        bool [B, 1, T, L].
    """
    batch, query, key = _grid(queries, slots_BL)
    return make_visible(queries, keys, subsets=True)(batch, batch, query, key)[:, None]


def dense_biases(queries: QueryTables, keys: KeyTables, slots_BL: Tensor, bias: Bias) -> Tensor:
    """`make_score_mod` as a dense float32 tensor [B, 1, T, L]."""
    batch, query, key = _grid(queries, slots_BL)
    zero = torch.zeros((), device=slots_BL.device)
    return make_score_mod(queries, keys, bias)(zero, batch, batch, query, key)[:, None]


def _grid(queries: QueryTables, slots_BL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    B, T = queries.visible_first.shape
    batch = torch.arange(B, device=slots_BL.device)[:, None, None]
    query = torch.arange(T, device=slots_BL.device)[None, :, None]
    return batch, query, slots_BL[:, None, :]
