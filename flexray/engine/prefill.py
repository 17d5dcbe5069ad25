"""Packed prefill: the tokens of many rows in one stream, without padding between them.

The stream may be cut into passes anywhere: a token sees earlier ones through the pool, so a long row
or context simply takes several passes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from flexray.engine import llama
from flexray.engine.attention import AttentionPlan, DenseView
from flexray.engine.budget import Budget
from flexray.engine.kv_pool import BLOCK_SIZE, CONTEXT_SAMPLE, PADDING_SAMPLE, KVPool, Placement
from flexray.engine.transfer import to_device
from flexray.masks.block_mask import (
    QUERY_TILE,
    BlockLists,
    BlockMaskCache,
    packed_block_mask,
    tile_blocks,
)
from flexray.masks.layout import ANSWER, CONTEXT, SampleLayout
from flexray.masks.visibility import (
    QueryTables,
    dense_context_bias,
    dense_mask,
    make_context_bias,
    make_visible,
)
from flexray.types import Backend

COPIES_AT_ONCE = 256
"""Rotated copies of the context written in one go; bounds the memory this takes."""


NO_BLOCKS = BlockLists(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Stream:
    """Tokens to prefill, on the host. Each [S]; `rows` indexes `blocks`, ascending."""

    token_ids: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    orders: np.ndarray
    samples: np.ndarray
    slots: np.ndarray
    bias: np.ndarray
    rows: np.ndarray
    ends: np.ndarray  # bool, the last token of a row
    blocks: list[np.ndarray]  # each row's own key blocks
    shared: BlockLists  # key blocks that all rows may look at

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def row_ends(self) -> np.ndarray:
        """int64, where rows end in this stream: the tokens that the first answer tokens are sampled from."""
        return np.flatnonzero(self.ends)

    def passes(self, budget: Budget) -> Iterator[Stream]:
        """Cut into streams that fill the budget's buckets, the last one as well as it can."""
        start = 0
        while start < len(self):
            stop = start + budget.prefill_pass(len(self) - start)
            yield self._part(slice(start, stop))
            start = stop

    def _part(self, part: slice) -> Stream:
        columns = [f.name for f in dataclasses.fields(self) if f.type == "np.ndarray"]
        return dataclasses.replace(self, **{name: getattr(self, name)[part] for name in columns})


def context_stream(token_ids: Sequence[int], pool: KVPool) -> Stream:
    """The context that all rows share, at positions 0..C-1."""
    C = len(token_ids)
    index = np.arange(C)
    return Stream(
        token_ids=np.asarray(token_ids, dtype=np.int64),
        positions=index,
        segments=np.full(C, CONTEXT),
        orders=index,
        samples=np.full(C, CONTEXT_SAMPLE),
        slots=pool.context_slots,
        bias=np.zeros(C),
        rows=np.zeros(C, dtype=np.int64),
        ends=index == C - 1,
        blocks=[pool.context_blocks],
        shared=NO_BLOCKS,
    )


def rows_stream(samples: Sequence[SampleLayout], placements: Sequence[Placement], pool: KVPool) -> Stream:
    """Many rows' tokens, one row behind the other."""
    lengths = [s.num_tokens for s in samples]
    # a row's slots are in stream order; orders count from its first slot
    slots = [p.slots[s.orders - _first_order(s)] for s, p in zip(samples, placements, strict=True)]
    sees_context = samples[0].sees_context
    assert all(s.sees_context == sees_context for s in samples)
    return Stream(
        token_ids=np.concatenate([s.token_ids for s in samples]),
        positions=np.concatenate([s.positions for s in samples]),
        segments=np.concatenate([s.segments for s in samples]),
        orders=np.concatenate([s.orders for s in samples]),
        samples=np.repeat([p.row for p in placements], lengths),
        slots=np.concatenate(slots),
        bias=np.concatenate([np.where(s.segments == ANSWER, s.context_bias, 0.0) for s in samples]),
        rows=np.repeat(np.arange(len(samples)), lengths),
        ends=np.concatenate([np.arange(n) == n - 1 for n in lengths]),
        blocks=[p.prompt_blocks for p in placements],
        shared=pool.context_lists if sees_context else NO_BLOCKS,
    )


def _first_order(sample: SampleLayout) -> int:
    copied = len(sample.copy_offsets) > 0
    return int(sample.copy_offsets[0]) if copied else int(sample.orders[0])


@torch.no_grad()
def copy_context(
    model: LlamaForCausalLM, pool: KVPool, samples: Sequence[SampleLayout], placements: Sequence[Placement]
) -> None:
    """Write rows' rotated copies of the context into their slots, in all layers."""
    C = len(pool.context_slots)
    if not C or not any(len(s.copy_offsets) for s in samples):
        return
    offsets = np.concatenate([s.copy_offsets for s in samples])
    within = [(s.copy_offsets[:, None] + np.arange(C)).reshape(-1) for s in samples]
    slots = np.concatenate([p.slots[i] for p, i in zip(placements, within, strict=True)])
    source = to_device(pool.context_slots, pool.device)
    for start in range(0, len(offsets), COPIES_AT_ONCE):
        part = slice(start, start + COPIES_AT_ONCE)
        offsets_M = to_device(offsets[part], pool.device)
        target = to_device(slots[part.start * C : part.stop * C], pool.device)
        for keys, values in zip(pool.keys, pool.values, strict=True):
            rotated_MKCD = llama.rotate_keys(model, keys[:, source], offsets_M)
            keys[:, target] = rotated_MKCD.transpose(0, 1).flatten(1, 2)
            values[:, target] = values[:, source].repeat(1, len(offsets_M), 1)


@torch.no_grad()
def prefill(
    model: LlamaForCausalLM,
    pool: KVPool,
    stream: Stream,
    *,
    backend: Backend,
    bucket: int,
    biased: bool,
    cache: BlockMaskCache,
    calls: Tensor,
) -> Tensor:
    """One pass: write the stream's K/V into the pool.

    Args:
        bucket: tokens the stream is padded to, a multiple of QUERY_TILE.
        biased: whether any row of the run has a context bias (it decides on the graph, not the batch).

    Returns:
        Hidden states before the last norm, [bucket, hidden].
    """
    S = len(stream)
    assert bucket >= S
    assert bucket % QUERY_TILE == 0
    scratch = np.arange(bucket - S) % BLOCK_SIZE
    columns = np.zeros((5, bucket), dtype=np.int64)
    columns[:, :S] = (stream.token_ids, stream.positions, stream.segments, stream.orders, stream.samples)
    columns[2, S:], columns[4, S:] = ANSWER, PADDING_SAMPLE
    ids, positions, segments, orders, samples = to_device(columns, pool.device)
    bias = to_device(np.pad(stream.bias, (0, bucket - S)).astype(np.float32), pool.device)
    slots = to_device(np.concatenate([stream.slots, scratch]), pool.device)
    tables = QueryTables(samples.int()[None], segments.int()[None], orders.int()[None], bias[None])

    block_mask = score_mod = dense = None
    if backend == "flex":
        rows = np.pad(stream.rows, (0, bucket - S), constant_values=len(stream.blocks))
        tiles = tile_blocks(rows, stream.shared, [*stream.blocks, np.zeros(1, dtype=np.int64)])
        digest = hashlib.blake2b(columns[2:].tobytes())
        digest.update(b"".join(t.full.tobytes() + b"/" + t.partial.tobytes() for t in tiles))
        block_mask = cache.get(
            ("prefill", digest.digest(), bucket, BLOCK_SIZE, str(pool.device)),
            lambda: packed_block_mask(
                tiles,
                num_blocks=pool.num_blocks,
                block_size=BLOCK_SIZE,
                mask_mod=make_visible(tables, pool.tables),
                to_device=lambda array: to_device(array, pool.device),
            ),
        )
        score_mod = make_context_bias(tables, pool.tables) if biased else None
    else:
        own = stream.blocks[stream.rows[0] : stream.rows[-1] + 1]
        seen = np.concatenate([[0], stream.shared.full, stream.shared.partial, *own])
        slots_BL = to_device((seen[:, None] * BLOCK_SIZE + np.arange(BLOCK_SIZE)).reshape(1, -1), pool.device)
        dense = DenseView(
            slots_BL,
            dense_mask(tables, pool.tables, slots_BL),
            dense_context_bias(tables, pool.tables, slots_BL) if biased else None,
        )
    plan = AttentionPlan(backend, slots, calls, block_mask, score_mod, dense)
    return llama.forward(model, ids[None], positions[None], plan, pool.keys, pool.values)[0]
