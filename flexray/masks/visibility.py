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

from flexray.masks.layout import FIRST_ANSWER, SEGMENT_BITS

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

_SEGMENTS = (1 << SEGMENT_BITS) - 1
_ANY_PARAPHRASE = ~(FIRST_ANSWER - 1)  # compares the request, and whether a segment is a paraphrase


@dataclass(frozen=True, slots=True)
class QueryTables:
    """What each query may see. All [B, T]: batch rows by query tokens. Segment ids: flexray.masks.layout."""

    visible: Tensor  # int32, segment id of the paraphrase, or of ALL_PARAPHRASES, that it sees
    visible_bits: Tensor  # int32, the bits of a key's segment id that must equal `visible`
    own: Tensor  # int32, its own segment id
    causal_index: Tensor  # int32
    context_bias: Tensor  # float32, added to its scores against the shared context
    paraphrase_bias: Tensor  # float32, added to its scores against paraphrases

    @classmethod
    def zeros(cls, shape: tuple[int, ...], device: torch.device) -> QueryTables:
        """Tables to be filled by `refresh`."""
        ints = [torch.zeros(shape, dtype=torch.int32, device=device) for _ in range(4)]
        return cls(*ints, *(torch.zeros(shape, dtype=torch.float32, device=device) for _ in range(2)))

    def refresh(self, visible: Tensor, own: Tensor, causal_index: Tensor, biases: Tensor | None) -> None:
        """Fill in place, from integers, and floats [2, ...], that broadcast to [B, T]."""
        self.visible.copy_(visible.expand_as(self.visible))
        self.visible_bits.copy_(torch.where((self.visible & _SEGMENTS) == 0, _ANY_PARAPHRASE, -1))
        self.own.copy_(own.expand_as(self.own))
        self.causal_index.copy_(causal_index.expand_as(self.causal_index))
        if biases is not None:
            self.context_bias.copy_(biases[0].expand_as(self.context_bias))
            self.paraphrase_bias.copy_(biases[1].expand_as(self.paraphrase_bias))


@dataclass(frozen=True, slots=True)
class KeyTables:
    """What each slot of the KV cache holds. All [P]."""

    segment_id: Tensor  # int32; negative: the shared context
    causal_index: Tensor  # int32


def make_visible(queries: QueryTables, keys: KeyTables) -> MaskMod:
    """The mask: causal, and (the shared context, or a paraphrase it sees, or its own segment). A free slot
    and padding have segment ids of their own, which no query of a real request looks for.

    Returns:
        A mask_mod over (batch, head, query index, key index) that returns a bool tensor.
    """
    q_visible, q_bits, q_own = queries.visible, queries.visible_bits, queries.own
    q_index, k_segment, k_index = queries.causal_index, keys.segment_id, keys.causal_index

    def visible(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        segment = k_segment[kv]
        seen = (segment < 0) | ((segment & q_bits[b, q]) == q_visible[b, q]) | (segment == q_own[b, q])
        return seen & (k_index[kv] <= q_index[b, q])

    return visible


def make_biases(queries: QueryTables, keys: KeyTables) -> ScoreMod:
    """The score_mod that lets context and paraphrases weigh more or less (see `AttentionScope`)."""
    q_context, q_paraphrase, k_segment = queries.context_bias, queries.paraphrase_bias, keys.segment_id

    def add_bias(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        segment = k_segment[kv]
        on_paraphrase = torch.where((segment & FIRST_ANSWER) == 0, q_paraphrase[b, q], 0.0)
        return score + torch.where(segment < 0, q_context[b, q], on_paraphrase)

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
    B, T = queries.visible.shape
    batch = torch.arange(B, device=slots_BL.device)[:, None, None]
    query = torch.arange(T, device=slots_BL.device)[None, :, None]
    return batch, query, slots_BL[:, None, :]
