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

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flexray.masks.layout import FIRST_ANSWER, HEAD_ID

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

_LAST_ID = 2**31 - 1  # the context belongs to all segments


@dataclass(frozen=True, slots=True)
class QueryTables:
    """What each query may see. All [B, T]: batch rows by query tokens. Segment ids: flexray.masks.layout."""

    visible_first: Tensor  # int32, segment ids of the first
    visible_last: Tensor  # int32, and of the last of the paraphrases that it sees
    own: Tensor  # int32, its own segment id
    causal_index: Tensor  # int32
    context_bias: Tensor  # float32, added to its scores against the shared context
    head_bias: Tensor  # float32, against the head of all paraphrases that stands behind it
    paraphrase_bias: Tensor  # float32, added to its scores against paraphrases

    @classmethod
    def zeros(cls, shape: tuple[int, ...], device: torch.device) -> QueryTables:
        """Tables to be filled by `refresh`."""
        ints = [torch.zeros(shape, dtype=torch.int32, device=device) for _ in range(4)]
        return cls(*ints, *(torch.zeros(shape, dtype=torch.float32, device=device) for _ in range(3)))

    def refresh(self, visible: Tensor, own: Tensor, causal_index: Tensor, biases: Tensor | None) -> None:
        """Fill in place, from integers, of `visible` [2, ...], and floats [3, ...], that broadcast to
        [B, T]."""
        self.visible_first.copy_(visible[0].expand_as(self.visible_first))
        self.visible_last.copy_(visible[1].expand_as(self.visible_last))
        self.own.copy_(own.expand_as(self.own))
        self.causal_index.copy_(causal_index.expand_as(self.causal_index))
        if biases is not None:
            self.context_bias.copy_(biases[0].expand_as(self.context_bias))
            self.head_bias.copy_(biases[1].expand_as(self.head_bias))
            self.paraphrase_bias.copy_(biases[2].expand_as(self.paraphrase_bias))


@dataclass(frozen=True, slots=True)
class KeyTables:
    """What each slot of the KV cache holds. All [P]."""

    first: Tensor  # int32, segment ids of the first; negative: the shared context
    last: Tensor  # int32, and of the last segment that shares it
    causal_index: Tensor  # int32
    log_copies: Tensor  # float32, log of how many paraphrases share it

    @classmethod
    def of(cls, first: Tensor, last: Tensor, causal_index: Tensor) -> KeyTables:
        """From int32 [P] each; the context is given to all segments, whatever its `last`."""
        is_context = first < 0
        copies = torch.where(is_context, 1, last - first + 1)
        return cls(first, last.masked_fill(is_context, _LAST_ID), causal_index, copies.float().log())

    def write(self, slots: Tensor, keys: KeyTables) -> None:
        """Say what the slots, int64 [n], hold from now on."""
        self.first[slots], self.last[slots] = keys.first, keys.last
        self.causal_index[slots], self.log_copies[slots] = keys.causal_index, keys.log_copies


def make_visible(queries: QueryTables, keys: KeyTables) -> MaskMod:
    """The mask: causal, and (of a paraphrase that it sees, or of its own segment).

    The shared context belongs to all segments. Tokens that paraphrases share belong to a range of segments;
    ranges are nested or disjoint, and the tokens of an inner one come later. So a paraphrase's token, which
    looks for the first of its own segments, sees the tokens on its path from the context, and no others. A
    free slot and padding have segment ids of their own, which no query of a real request looks for.

    Returns:
        A mask_mod over (batch, head, query index, key index) that returns a bool tensor.
    """
    q_first, q_last, q_own = queries.visible_first, queries.visible_last, queries.own
    q_index, k_first, k_last, k_index = queries.causal_index, keys.first, keys.last, keys.causal_index

    def visible(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        first = k_first[kv]
        seen = (first <= q_last[b, q]) & (q_first[b, q] <= k_last[kv])
        return (seen | (first == q_own[b, q])) & (k_index[kv] <= q_index[b, q])

    return visible


def make_biases(queries: QueryTables, keys: KeyTables) -> ScoreMod:
    """The score_mod that lets context and paraphrases weigh more or less (see `AttentionScope`), and what
    paraphrases share as much as its copies would, for queries that see all of them."""
    q_first, q_last, k_first, k_copies = (
        queries.visible_first,
        queries.visible_last,
        keys.first,
        keys.log_copies,
    )
    q_context, q_head, q_paraphrase = queries.context_bias, queries.head_bias, queries.paraphrase_bias

    def add_bias(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        first = k_first[kv]
        copies = torch.where(q_first[b, q] < q_last[b, q], k_copies[kv], 0.0)
        on_paraphrase = torch.where((first & FIRST_ANSWER) == 0, q_paraphrase[b, q], 0.0)
        on_context = torch.where(first == HEAD_ID, q_head[b, q], q_context[b, q])
        return score + copies + torch.where(first < 0, on_context, on_paraphrase)

    return add_bias


def dense_mask(queries: QueryTables, keys: KeyTables, slots_BL: Tensor) -> Tensor:
    """The same mask as a dense tensor, over chosen slots of the KV cache.

    Args:
        slots_BL: int64 [B, L], the slots each batch row may look at.

    Returns:
        bool [B, 1, T, L].
    """
    batch, query, key = _grid(queries, slots_BL)
    return make_visible(queries, keys)(batch, batch, query, key)[:, None]


def dense_biases(queries: QueryTables, keys: KeyTables, slots_BL: Tensor) -> Tensor:
    """`make_biases` as a dense float32 tensor [B, 1, T, L]."""
    batch, query, key = _grid(queries, slots_BL)
    zero = torch.zeros((), device=slots_BL.device)
    return make_biases(queries, keys)(zero, batch, batch, query, key)[:, None]


def _grid(queries: QueryTables, slots_BL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    B, T = queries.visible_first.shape
    batch = torch.arange(B, device=slots_BL.device)[:, None, None]
    query = torch.arange(T, device=slots_BL.device)[None, :, None]
    return batch, query, slots_BL[:, None, :]
