"""The one rule of who sees whom, as FlexAttention's mask_mod and score_mod.

Every backend, layout and phase uses these two functions; only the tables differ. The tables are
tensors, so that a new batch brings new values and not new code: a closure of the same factory with
other tensors compiles nothing.

Worked example, a context `c`, paraphrases `p` and `q q`, a cue `a` (rows: queries, columns: keys):

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

from flexray.masks.layout import ANSWER, CONTEXT

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class QueryTables:
    """What each query is. All [B, T]: batch rows by query tokens."""

    sample: Tensor  # int32, the row of the KV pool it belongs to; negative: padding
    segment: Tensor  # int32, see flexray.masks.layout
    order: Tensor  # int32
    context_bias: Tensor  # float32, added to its scores against the context


@dataclass(frozen=True, slots=True)
class KeyTables:
    """What each slot of the KV pool holds. All [P]."""

    sample: Tensor  # int32; negative: nobody's
    segment: Tensor  # int32
    order: Tensor  # int32


def make_visible(queries: QueryTables, keys: KeyTables) -> MaskMod:
    """The mask: causal, and (the shared context, or the same sample and (an answer query, or the same
    segment)). Padding has a sample of its own, which no key of a real sample has.

    Returns:
        A mask_mod over (batch, head, query index, key index) that returns a bool tensor.
    """
    q_sample, q_segment, q_order = queries.sample, queries.segment, queries.order
    k_sample, k_segment, k_order = keys.sample, keys.segment, keys.order

    def visible(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        segment = q_segment[b, q]
        own = (q_sample[b, q] == k_sample[kv]) & ((segment == ANSWER) | (segment == k_segment[kv]))
        return (k_order[kv] <= q_order[b, q]) & ((k_segment[kv] == CONTEXT) | own)

    return visible


def make_context_bias(queries: QueryTables, keys: KeyTables) -> ScoreMod:
    """The score_mod that makes one context stand for N equal copies (see flexray.masks.layout)."""
    q_bias, k_segment = queries.context_bias, keys.segment

    def add_context_bias(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return score + torch.where(k_segment[kv] == CONTEXT, q_bias[b, q], 0.0)

    return add_context_bias


def dense_mask(queries: QueryTables, keys: KeyTables, slots_BL: Tensor) -> Tensor:
    """The same mask as a dense tensor, over chosen slots of the pool.

    Args:
        slots_BL: int64 [B, L], the slots each batch row may look at.

    Returns:
        bool [B, 1, T, L].
    """
    batch, query, key = _grid(queries, slots_BL)
    return make_visible(queries, keys)(batch, batch, query, key)[:, None]


def dense_context_bias(queries: QueryTables, keys: KeyTables, slots_BL: Tensor) -> Tensor:
    """`make_context_bias` as a dense float32 tensor [B, 1, T, L]."""
    batch, query, key = _grid(queries, slots_BL)
    zero = torch.zeros((), device=slots_BL.device)
    return make_context_bias(queries, keys)(zero, batch, batch, query, key)[:, None]


def _grid(queries: QueryTables, slots_BL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    B, T = queries.sample.shape
    batch = torch.arange(B, device=slots_BL.device)[:, None, None]
    query = torch.arange(T, device=slots_BL.device)[None, :, None]
    return batch, query, slots_BL[:, None, :]
