"""One slow and obvious pass over a stream: dense attention, and how much of it each segment gets.

The engine's layers and its eager attention run with a KV cache that is the stream itself, token by token in
order. What makes the engine fast is not used: no FlexAttention, no paging, no packing, no decoding state.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flexray.masks.stream import Stream
from flexray.models.attention import AttentionMetadata, make_dense_mask
from flexray.models.llama import Llama

QUERIES_AT_ONCE = 512
"""Tokens of a pass: bounds the memory of the dense scores, heads x this x S."""


@torch.no_grad()
def dense_pass(model: Llama, stream: Stream) -> list[tuple[Tensor, Tensor]]:
    """Run a stream of S tokens and P segments under flexray's mask and biases.

    Args:
        model: the engine's.

    Returns:
        For each sequence, of its T queries: hidden states behind the last norm, [T, hidden]; and the share of
        attention that each segment gets, float32 [layers, T, P], the mean of the heads. Shares of a query sum
        to 1.
    """
    device, shape, S = model.device, model.shape, len(stream)
    size = (shape.num_kv_heads, S, shape.head_dim)
    keys, values = (
        [torch.zeros(size, dtype=model.dtype, device=device) for _ in range(model.num_layers)]
        for _ in range(2)
    )
    ids, positions = (torch.from_numpy(a).to(device)[None] for a in (stream.token_ids, stream.positions))
    number = torch.repeat_interleave(torch.tensor([len(s) for s in stream.segments]))
    member = torch.nn.functional.one_hot(number, len(stream.segments)).float().to(device)
    lengths = [len(queries) for queries in stream.queries]
    queries = torch.cat([torch.from_numpy(queries) for queries in stream.queries]).to(device)
    hidden: list[Tensor] = []
    shares: list[Tensor] = []
    for start in range(0, S, QUERIES_AT_ONCE):
        stop = min(S, start + QUERIES_AT_ONCE)
        watched = queries[(start <= queries) & (queries < stop)] - start
        tables = stream.tables(device, start, stop)
        slots, adaptive = torch.arange(S, device=device)[None], bool(stream.biases[3:].any())
        mask = make_dense_mask(slots, 1, *tables, bias="all", adaptive=adaptive)
        by_layer: list[Tensor] = []

        def watch(scores: Tensor, watched: Tensor = watched, found: list[Tensor] = by_layer) -> None:
            found.append(scores[0, :, watched].softmax(-1).mean(0) @ member)

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
    per_sequence = torch.cat(hidden).split(lengths), torch.cat(shares, dim=1).split(lengths, dim=1)
    return list(zip(*per_sequence, strict=True))
