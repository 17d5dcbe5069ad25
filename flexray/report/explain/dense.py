"""One slow and obvious pass over a finished stream: dense attention, and how much of it each part gets.

The engine's layers and its eager attention run on a pool that is the stream itself, token by token in order.
So none of what makes the engine fast is used: no FlexAttention, no paging, no packing, no decoding state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from flexray.models import llama
from flexray.models.attention import AttentionMetadata, flexray_attention, make_dense_mask
from flexray.report.explain.stream import Stream

WATCHED_NAME = "flexray_watched"
QUERIES_AT_ONCE = 512
"""Tokens of a pass: bounds the memory of the dense scores, heads x this x S."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _WatchedMetadata(AttentionMetadata):
    """Attention metadata of a pass of which some queries are watched."""

    watched: Tensor  # int64 [W], queries of this pass
    member: Tensor  # float32 [S, R], 1 where a key is of a region
    shares: list[Tensor] = field(default_factory=list)  # of each layer, [W, R]


@torch.no_grad()
def dense_pass(model: llama.LlamaLike, stream: Stream) -> tuple[Tensor, Tensor]:
    """Run a stream, its S tokens given, under flexray's mask and biases.

    Args:
        model: as the engine has patched it; the same afterwards.

    Returns:
        Of the stream's queries, Q in all, one branch behind the other: hidden states before the last norm,
        [Q, hidden]; and the share of attention that each region gets, float32 [layers, Q, R], the mean of the
        heads. Shares of a query sum to 1.
    """
    device, shape, S = llama.device_of(model), model.config, len(stream)
    size = (llama.num_kv_heads(model), S, model.model.layers[0].self_attn.head_dim)
    keys, values = (
        [torch.zeros(size, dtype=model.dtype, device=device) for _ in range(shape.num_hidden_layers)]
        for _ in range(2)
    )
    ids, positions = (torch.from_numpy(a).to(device)[None] for a in (stream.ids, stream.positions))
    member = stream.membership().to(device)
    queries = torch.cat([torch.from_numpy(query) for query in stream.queries]).to(device)
    hidden: list[Tensor] = []
    shares: list[Tensor] = []
    with _watching(model):
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
    return torch.cat(hidden), torch.cat(shares, dim=1)


def watched_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    metadata: _WatchedMetadata,
    key_cache: Tensor,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """flexray's attention; and what it weighs the keys with, added up by region."""
    out = flexray_attention(
        module,
        query,
        key,
        value,
        attention_mask,
        scaling=scaling,
        metadata=metadata,
        key_cache=key_cache,
        **kwargs,
    )
    metadata.shares.append(
        _shares(query, key_cache, scaling, metadata)
    )  # the cache has this pass's keys by now
    return out


def _shares(query: Tensor, keys: Tensor, scale: float, metadata: _WatchedMetadata) -> Tensor:
    """float32 [W, R], from query [1, H, T, D] and keys [K, S, D]."""
    assert metadata.dense is not None
    assert metadata.dense.bias is not None
    (K, S, D), H, W = keys.shape, query.shape[1], len(metadata.watched)
    watched = query[0, :, metadata.watched].float().reshape(K, H // K * W, D)
    scores = (watched @ keys.float().transpose(1, 2) * scale).reshape(H, W, S)
    scores = scores + metadata.dense.bias[0, :, metadata.watched]
    scores = scores.masked_fill(~metadata.dense.mask[0, :, metadata.watched], float("-inf"))
    return scores.softmax(-1).mean(0) @ metadata.member


@contextlib.contextmanager
def _watching(model: llama.LlamaLike) -> Iterator[None]:
    """Point the layers at `watched_attention`; as before afterwards."""
    AttentionInterface.register(WATCHED_NAME, watched_attention)
    before = model.config._attn_implementation
    model.config._attn_implementation = WATCHED_NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before
