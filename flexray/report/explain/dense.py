"""One slow and obvious pass over a finished stream: dense attention, and how much of it each part gets.

The engine's layers and its eager attention run on a pool that is the stream itself, token by token in order.
So none of what makes the engine fast is used: no FlexAttention, no paging, no packing, no decoding state.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flexray.models.attention import AttentionMetadata, DenseMask, make_dense_mask
from flexray.models.llama import Llama
from flexray.report.explain.stream import Stream

QUERIES_AT_ONCE = 512
"""Tokens of a pass: bounds the memory of the dense scores, heads x this x S."""


@torch.no_grad()
def dense_pass(model: Llama, stream: Stream) -> tuple[Tensor, Tensor]:
    """Run a stream, its S tokens given, under flexray's mask and biases.

    Args:
        model: the engine's.

    Returns:
        Of the stream's queries, Q in all, one branch behind the other: hidden states before the last norm,
        [Q, hidden]; and the share of attention that each region gets, float32 [layers, Q, R], the mean of the
        heads. Shares of a query sum to 1.
    """
    device, shape, S = model.device, model.shape, len(stream)
    size = (shape.num_kv_heads, S, shape.head_dim)
    keys, values = (
        [torch.zeros(size, dtype=model.dtype, device=device) for _ in range(model.num_layers)]
        for _ in range(2)
    )
    ids, positions = (torch.from_numpy(a).to(device)[None] for a in (stream.ids, stream.positions))
    member = stream.membership().to(device)
    queries = torch.cat([torch.from_numpy(query) for query in stream.queries]).to(device)
    hidden: list[Tensor] = []
    shares: list[Tensor] = []
    for start in range(0, S, QUERIES_AT_ONCE):
        stop = min(S, start + QUERIES_AT_ONCE)
        watched = queries[(start <= queries) & (queries < stop)] - start
        tables = stream.tables(device, start, stop)
        mask = make_dense_mask(torch.arange(S, device=device)[None], 1, *tables, bias="all")
        by_layer: list[Tensor] = []

        def watch(
            query: Tensor,
            keys: Tensor,
            scale: float,
            mask: DenseMask = mask,
            watched: Tensor = watched,
            found: list[Tensor] = by_layer,
        ) -> None:
            found.append(_shares(query[0, :, watched], keys, scale, mask, watched) @ member)

        metadata = AttentionMetadata(
            backend="eager",
            slot_mapping=torch.arange(start, stop, device=device),
            calls=torch.zeros(1, dtype=torch.int64, device=device),
            dense=mask,
            watch=watch,
        )
        out = model.forward(ids[:, start:stop], positions[:, start:stop], metadata, keys, values)
        hidden.append(out[0, watched])
        shares.append(torch.stack(by_layer))
    return torch.cat(hidden), torch.cat(shares, dim=1)


def _shares(query: Tensor, keys: Tensor, scale: float, mask: DenseMask, watched: Tensor) -> Tensor:
    """What the watched tokens of a pass, int64 [W], weigh the keys with, float32 [W, S]: the mean of the
    heads. query: theirs, [H, W, D]; keys: [K, S, D]."""
    assert mask.bias is not None
    (H, W, D), (K, S, _) = query.shape, keys.shape
    scores = query.float().reshape(K, H // K * W, D) @ keys.float().transpose(1, 2) * scale
    scores = scores.reshape(H, W, S) + mask.bias[0, :, watched]
    return scores.masked_fill(~mask.mask[0, :, watched], float("-inf")).softmax(-1).mean(0)
