"""The one rule of who sees whom, as FlexAttention's mask_mod and score_mod.

Every backend, layout, method and phase uses these two functions; only the tables differ. The tables are
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

from flexray.masks.layout import FIRST_BRANCH, PART_BITS

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

_PARTS = (1 << PART_BITS) - 1
_ALL_PARAPHRASES = ~(FIRST_BRANCH - 1)  # compares row, and whether a part is a paraphrase


@dataclass(frozen=True, slots=True)
class QueryTables:
    """What each query may see. All [B, T]: batch rows by query tokens. Codes: flexray.masks.layout."""

    seen: Tensor  # int32, code of the paraphrase, or of ALL, that it sees
    seen_bits: Tensor  # int32, the bits of a key's code that must equal `seen`
    own: Tensor  # int32, code of its own part
    order: Tensor  # int32
    context_bias: Tensor  # float32, added to its scores against the shared context
    paraphrase_bias: Tensor  # float32, added to its scores against paraphrases

    @classmethod
    def zeros(cls, shape: tuple[int, ...], device: torch.device) -> QueryTables:
        """Tables to be filled by `refresh`."""
        ints = [torch.zeros(shape, dtype=torch.int32, device=device) for _ in range(4)]
        return cls(*ints, *(torch.zeros(shape, dtype=torch.float32, device=device) for _ in range(2)))

    def refresh(self, seen: Tensor, own: Tensor, order: Tensor, biases: Tensor | None) -> None:
        """Fill in place, from integers, and floats [2, ...], that broadcast to [B, T]."""
        self.seen.copy_(seen.expand_as(self.seen))
        self.seen_bits.copy_(torch.where((self.seen & _PARTS) == 0, _ALL_PARAPHRASES, -1))
        self.own.copy_(own.expand_as(self.own))
        self.order.copy_(order.expand_as(self.order))
        if biases is not None:
            self.context_bias.copy_(biases[0].expand_as(self.context_bias))
            self.paraphrase_bias.copy_(biases[1].expand_as(self.paraphrase_bias))


@dataclass(frozen=True, slots=True)
class KeyTables:
    """What each slot of the KV pool holds. All [P]."""

    code: Tensor  # int32; negative: the shared context
    order: Tensor  # int32


def make_visible(queries: QueryTables, keys: KeyTables) -> MaskMod:
    """The mask: causal, and (the shared context, or a paraphrase it sees, or its own part). A free slot and
    padding have codes of their own, which no query of a real sample looks for.

    Returns:
        A mask_mod over (batch, head, query index, key index) that returns a bool tensor.
    """
    q_seen, q_bits, q_own, q_order = queries.seen, queries.seen_bits, queries.own, queries.order
    k_code, k_order = keys.code, keys.order

    def visible(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        code = k_code[kv]
        part = (code < 0) | ((code & q_bits[b, q]) == q_seen[b, q]) | (code == q_own[b, q])
        return part & (k_order[kv] <= q_order[b, q])

    return visible


def make_biases(queries: QueryTables, keys: KeyTables) -> ScoreMod:
    """The score_mod that lets context and paraphrases weigh more or less (see `View`)."""
    q_context, q_paraphrase, k_code = queries.context_bias, queries.paraphrase_bias, keys.code

    def add_bias(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        code = k_code[kv]
        on_paraphrase = torch.where((code & FIRST_BRANCH) == 0, q_paraphrase[b, q], 0.0)
        return score + torch.where(code < 0, q_context[b, q], on_paraphrase)

    return add_bias


def dense_mask(queries: QueryTables, keys: KeyTables, slots_BL: Tensor) -> Tensor:
    """The same mask as a dense tensor, over chosen slots of the pool.

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
    B, T = queries.seen.shape
    batch = torch.arange(B, device=slots_BL.device)[:, None, None]
    query = torch.arange(T, device=slots_BL.device)[None, :, None]
    return batch, query, slots_BL[:, None, :]
