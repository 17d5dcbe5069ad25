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
from flexray.masks.adaptive import AdaptiveTables
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
    adaptive: AdaptiveTables | None = None  # what is done to the scores before that


def make_dense_mask(
    blocks_BN: Tensor,
    block_size: int,
    queries: QueryTables,
    keys: KeyTables,
    *,
    bias: Bias | None,
    adaptive: bool = False,
) -> DenseMask:
    """The view of blocks, int64 [B, N]: L is N * block_size."""
    slots = blocks_BN[:, :, None] * block_size + torch.arange(block_size, device=blocks_BN.device)
    slots_BL = slots.flatten(1)
    return DenseMask(
        slots_BL,
        dense_mask(queries, keys, slots_BL),
        dense_biases(queries, keys, slots_BL, bias) if bias else None,
        AdaptiveTables(queries, keys) if adaptive else None,
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
    key_splits: int = 1  # flex, T == 1: disjoint parts of each row's blocks, which are rows of the mask
    context: Slots | None = None  # flex: not in the block mask, but seen by all queries; see `merge`
    context_bias: Tensor | None = None  # float32 [B, T], added to the scores against it
    adaptive: AdaptiveTables | None = None  # flex: see flexray.masks.adaptive
    watch: Callable[[Tensor], None] | None = None  # eager: told each layer's scores, see `_scores`


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
    if metadata.dense.adaptive is not None:
        # the mask is all of the scores, in float32, and no bias: queries and keys add nothing to it
        mask, seen_values = _scores(query, seen_keys, scale, metadata.dense), seen_values.float()
        query, seen_keys = (torch.zeros_like(x, dtype=torch.float32) for x in (query, seen_keys))
    elif metadata.dense.bias is not None:
        mask = metadata.dense.bias.to(query.dtype).masked_fill(~mask, float("-inf"))
    metadata.calls.add_(1)
    out = nn.functional.scaled_dot_product_attention(
        query, seen_keys, seen_values, attn_mask=mask, scale=scale, enable_gqa=query.shape[1] != K
    )
    return out.to(keys.dtype)


def _eager(query: Tensor, keys: Tensor, values: Tensor, scale: float, metadata: AttentionMetadata) -> Tensor:
    """Softmax written out, in float32."""
    assert metadata.dense is not None
    scores = _scores(query, _gather(keys, metadata.dense), scale, metadata.dense)
    grouped = scores.unflatten(1, (keys.shape[0], -1))
    seen_values = _gather(values, metadata.dense).float()
    out = torch.einsum("bkgtl,bkld->bkgtd", grouped.softmax(-1), seen_values)
    metadata.calls.add_(1)
    if metadata.watch is not None:
        metadata.watch(scores)
    return out.flatten(1, 2).to(query.dtype)


def _scores(query: Tensor, keys: Tensor, scale: float, dense: DenseMask) -> Tensor:
    """What a softmax makes weights of, float32 [B, H, T, L]; minus infinity where a key is not seen.

    Args:
        query: [B, H, T, D]. keys: [B, K, L, D], those at the mask's slots.
    """
    grouped = query.unflatten(1, (keys.shape[1], -1)).float()
    scores = (torch.einsum("bkgtd,bkld->bkgtl", grouped, keys.float()) * scale).flatten(1, 2)
    if dense.adaptive is not None:
        return _adapt(scores, dense, dense.adaptive)
    if dense.bias is not None:
        scores = scores + dense.bias
    return scores.masked_fill(~dense.mask, float("-inf"))


def _adapt(scores: Tensor, dense: DenseMask, adaptive: AdaptiveTables) -> Tensor:
    (B, H, T, _), device, bias = scores.shape, scores.device, dense.bias
    batch, head = (torch.arange(n, device=device) for n in (B, H))
    index = (
        batch[:, None, None, None],
        head[:, None, None],
        torch.arange(T, device=device)[:, None],
        dense.slots[:, None, None],
    )

    def add_bias(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return score if bias is None else score + bias

    def masked(score_mod: ScoreMod) -> Tensor:
        return score_mod(scores, *index).masked_fill(~dense.mask, float("-inf"))

    log_sums = masked(adaptive.of_paraphrases(add_bias)).logsumexp(-1)
    return masked(adaptive.scaled(add_bias, log_sums))


def _gather(cache: Tensor, view: DenseMask) -> Tensor:
    """[K, P, D] at slots [B, L] -> [B, K, L, D]."""
    return cache[:, view.slots].transpose(0, 1)


BACKENDS: dict[Backend, Callable[[Tensor, Tensor, Tensor, float, AttentionMetadata], Tensor]] = {
    "flex": attend_by_flex,
    "sdpa": _sdpa,
    "eager": _eager,
}
