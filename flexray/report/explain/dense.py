"""One slow and obvious pass over a stream: dense attention, and how much of it each segment gets.

The engine's layers and its eager attention run with a KV cache that is the stream itself, token by token in
order. What makes the engine fast is not used: no FlexAttention, no paging, no packing, no decoding state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from flexray.masks.stream import Stream
from flexray.models import llama
from flexray.models.attention import AttentionMetadata, flexray_attention, make_dense_mask

WATCHED_NAME = "flexray_watched"
QUERIES_AT_ONCE = 512
"""Tokens of a pass: bounds the memory of the dense scores, heads x this x S."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _WatchedMetadata(AttentionMetadata):
    """Attention metadata of a pass that records the attention of some queries."""

    watched: Tensor  # int64 [W], queries of this pass
    member: Tensor  # float32 [S, P], 1 where a key is of a segment
    shares: list[Tensor] = field(default_factory=list)  # of each layer, [W, P]


@torch.no_grad()
def dense_pass(model: llama.LlamaLike, stream: Stream) -> list[tuple[Tensor, Tensor]]:
    """Run a stream of S tokens and P segments under flexray's mask and biases.

    Args:
        model: as the engine has patched it; the same afterwards.

    Returns:
        For each sequence, of its T queries: hidden states before the last norm, [T, hidden]; and the share of
        attention that each segment gets, float32 [layers, T, P], the mean of the heads. Shares of a query sum
        to 1.
    """
    device, S = llama.device_of(model), len(stream)
    size = (llama.num_kv_heads(model), S, model.model.layers[0].self_attn.head_dim)
    keys, values = (
        [torch.zeros(size, dtype=model.dtype, device=device) for _ in model.model.layers] for _ in range(2)
    )
    ids, positions = (torch.from_numpy(a).to(device)[None] for a in (stream.token_ids, stream.positions))
    number = torch.repeat_interleave(torch.tensor([len(s) for s in stream.segments]))
    member = torch.nn.functional.one_hot(number, len(stream.segments)).float().to(device)
    lengths = [len(queries) for queries in stream.queries]
    queries = torch.cat([torch.from_numpy(queries) for queries in stream.queries]).to(device)
    hidden: list[Tensor] = []
    shares: list[Tensor] = []
    AttentionInterface.register(WATCHED_NAME, watched_attention)
    before, model.config._attn_implementation = model.config._attn_implementation, WATCHED_NAME
    try:
        for start in range(0, S, QUERIES_AT_ONCE):
            stop = min(S, start + QUERIES_AT_ONCE)
            tables = stream.tables(device, start, stop)
            metadata = _WatchedMetadata(
                backend="eager",
                slot_mapping=torch.arange(start, stop, device=device),
                calls=torch.zeros(1, dtype=torch.int64, device=device),
                dense=make_dense_mask(torch.arange(S, device=device)[None], 1, *tables, biased=True),
                watched=queries[(start <= queries) & (queries < stop)] - start,
                member=member,
            )
            out = llama.forward(model, ids[:, start:stop], positions[:, start:stop], metadata, keys, values)
            hidden.append(out[0, metadata.watched])
            shares.append(torch.stack(metadata.shares))
    finally:
        model.config._attn_implementation = before
    per_sequence = torch.cat(hidden).split(lengths), torch.cat(shares, dim=1).split(lengths, dim=1)
    return list(zip(*per_sequence, strict=True))


def watched_attention(
    module: nn.Module,
    query: Tensor,
    *arguments: Any,
    scaling: float,
    metadata: _WatchedMetadata,
    key_cache: Tensor,
    **more: Any,
) -> tuple[Tensor, None]:
    """flexray's attention, which also adds up by segment how much weight the keys get."""
    out = flexray_attention(
        module, query, *arguments, scaling=scaling, metadata=metadata, key_cache=key_cache, **more
    )
    metadata.shares.append(_shares(query, key_cache, scaling, metadata))  # the cache has this pass's keys now
    return out


def _shares(query: Tensor, keys: Tensor, scale: float, metadata: _WatchedMetadata) -> Tensor:
    """float32 [W, P], from query [1, H, T, D] and keys [K, S, D]."""
    assert metadata.dense is not None
    assert metadata.dense.bias is not None
    (K, S, D), H, W = keys.shape, query.shape[1], len(metadata.watched)
    watched = query[0, :, metadata.watched].float().reshape(K, H // K * W, D)
    scores = (watched @ keys.float().transpose(1, 2) * scale).reshape(H, W, S)
    scores = scores + metadata.dense.bias[0, :, metadata.watched]
    scores = scores.masked_fill(~metadata.dense.mask[0, :, metadata.watched], float("-inf"))
    return scores.softmax(-1).mean(0) @ metadata.member
