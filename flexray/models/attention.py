"""The attention of a layer, over the KV cache.

Three backends, one mask: all read the tables of `flexray.masks.visibility`.
Shapes: B batch rows, T query tokens a row, H query heads, K key/value heads, G = H / K, P cache slots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

from flexray.config import Backend
from flexray.masks.visibility import Bias, KeyTables, QueryTables, ScoreMod, dense_biases, dense_mask
from flexray.models.flex import attend_by_flex

Slots = tuple[int, int]
"""A range of cache slots: the first one, and the one behind the last."""


@dataclass(frozen=True, slots=True)
class DenseMask:
    """What sdpa and eager need: the slots each row looks at, and the mask over them."""

    slots: Tensor  # int64 [B, L]
    mask: Tensor  # bool [B, 1, T, L]
    bias: Tensor | None  # float32 [B, 1, T, L], added to the scores


def make_dense_mask(
    blocks_BN: Tensor, block_size: int, queries: QueryTables, keys: KeyTables, *, bias: Bias | None
) -> DenseMask:
    """The view of blocks, int64 [B, N]: L is N * block_size."""
    slots = blocks_BN[:, :, None] * block_size + torch.arange(block_size, device=blocks_BN.device)
    slots_BL = slots.flatten(1)
    return DenseMask(
        slots_BL,
        dense_mask(queries, keys, slots_BL),
        dense_biases(queries, keys, slots_BL, bias) if bias else None,
    )


@dataclass(frozen=True, slots=True)
class AttentionMetadata:
    """One forward pass's attention, built once and shared by all layers."""

    backend: Backend
    slot_mapping: Tensor  # int64 [B * T], where this pass's K/V go
    calls: Tensor  # int64 [1], counted where the attention is computed
    block_mask: BlockMask | None = None  # flex
    score_mod: ScoreMod | None = None  # flex
    dense: DenseMask | None = None  # sdpa, eager
    fold_heads: bool = False  # flex, T == 1: the G heads of a group become G query tokens
    context: Slots | None = None  # flex: not in the block mask, but seen by all queries; see `merge`
    context_bias: Tensor | None = None  # float32 [B, T], added to the scores against it
    watch: Callable[[Tensor, Tensor, float], None] | None = None  # eager: told each layer's queries and keys


def attend(query: Tensor, keys: Tensor, values: Tensor, scale: float, metadata: AttentionMetadata) -> Tensor:
    """Attention of one layer, whose own keys and values are in the cache already.

    Args:
        query: [B, H, T, D], rotated. keys, values: the layer's cache, [K, P, D].
        scale: of the scores.

    Returns:
        [B, H, T, D].
    """
    return BACKENDS[metadata.backend](query, keys, values, scale, metadata)


def write(cache: Tensor, new: Tensor, slots: Tensor) -> None:
    """Put [B, T, K, D] into the cache's [K, P, D] at slots [B * T]."""
    cache[:, slots] = new.flatten(0, 1).transpose(0, 1)


def _sdpa(query: Tensor, keys: Tensor, values: Tensor, scale: float, metadata: AttentionMetadata) -> Tensor:
    assert metadata.dense is not None
    K = keys.shape[0]
    seen_keys, seen_values = _gather(keys, metadata.dense), _gather(values, metadata.dense)
    mask = metadata.dense.mask
    if metadata.dense.bias is not None:
        mask = metadata.dense.bias.to(query.dtype).masked_fill(~mask, float("-inf"))
    metadata.calls.add_(1)
    return nn.functional.scaled_dot_product_attention(
        query, seen_keys, seen_values, attn_mask=mask, scale=scale, enable_gqa=query.shape[1] != K
    )


def _eager(query: Tensor, keys: Tensor, values: Tensor, scale: float, metadata: AttentionMetadata) -> Tensor:
    """Softmax written out, in float32."""
    assert metadata.dense is not None
    B, H, T, D = query.shape
    K = keys.shape[0]
    grouped = query.reshape(B, K, H // K, T, D).float()
    seen_keys, seen_values = _gather(keys, metadata.dense).float(), _gather(values, metadata.dense).float()
    scores = torch.einsum("bkgtd,bkld->bkgtl", grouped, seen_keys) * scale
    if metadata.dense.bias is not None:
        scores = scores + metadata.dense.bias[:, None]
    scores = scores.masked_fill(~metadata.dense.mask[:, None], float("-inf"))
    out = torch.einsum("bkgtl,bkld->bkgtd", scores.softmax(-1), seen_values)
    metadata.calls.add_(1)
    if metadata.watch is not None:
        metadata.watch(query, keys, scale)
    return out.reshape(B, H, T, D).to(query.dtype)


def _gather(cache: Tensor, view: DenseMask) -> Tensor:
    """[K, P, D] at slots [B, L] -> [B, K, L, D]."""
    return cache[:, view.slots].transpose(0, 1)


BACKENDS: dict[Backend, Callable[[Tensor, Tensor, Tensor, float, AttentionMetadata], Tensor]] = {
    "flex": attend_by_flex,
    "sdpa": _sdpa,
    "eager": _eager,
}
