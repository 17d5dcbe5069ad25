"""Packed prefill: the tokens of many rows in one stream, without padding between them.

The stream may be cut into passes anywhere: a token sees earlier ones through the pool, so a long row
or context simply takes several passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers import LlamaForCausalLM

from flexray.engine import llama
from flexray.engine.attention import AttentionPlan, dense_view
from flexray.engine.budget import Budget
from flexray.engine.kv_pool import BLOCK_SIZE, PADDING_CODE, KVPool, Placement, row_blocks
from flexray.engine.transfer import to_device
from flexray.masks.block_mask import (
    NO_BLOCKS,
    QUERY_TILE,
    BlockLists,
    BlockMaskCache,
    make_block_mask,
    tile_blocks,
)
from flexray.masks.layout import CONTEXT_CODE, PART_BITS, Sample
from flexray.masks.visibility import QueryTables, make_biases, make_visible
from flexray.types import Backend

COPIES_AT_ONCE = 256
"""Rotated copies of the context written in one go; bounds the memory this takes."""

# The columns of a stream, int64: what a pass has to know of each token.
ID, POSITION, SEEN, OWN, ORDER, SLOT = range(6)


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A row that has its place in the pool, ready to be packed. L own tokens."""

    columns: np.ndarray  # int64 [6, L]
    biases: np.ndarray  # float32 [2, L]
    ends: np.ndarray  # int64 [B], tokens that the first tokens of answers are chosen from
    blocks: np.ndarray  # int64, ids of its own key blocks


@dataclass(frozen=True, slots=True)
class Stream:
    """Tokens to prefill, on the host, one row behind the other."""

    columns: np.ndarray  # int64 [6, S]
    biases: np.ndarray  # float32 [2, S]
    rows: np.ndarray  # int64 [S], index into `blocks`, ascending
    ends: np.ndarray  # int64, where answers begin, ascending
    blocks: Sequence[np.ndarray]  # each row's own key blocks
    shared: BlockLists  # key blocks that all rows may look at

    def __len__(self) -> int:
        return self.columns.shape[1]

    def passes(self, budget: Budget) -> Iterator[Stream]:
        """Cut into streams that fill the budget's buckets, the last one as well as it can."""
        start = 0
        while start < len(self):
            stop = start + budget.prefill_pass(len(self) - start)
            rows = self.rows[start:stop]
            yield Stream(
                self.columns[:, start:stop],
                self.biases[:, start:stop],
                rows - rows[0],
                self.ends[(start <= self.ends) & (self.ends < stop)] - start,
                self.blocks[rows[0] : rows[-1] + 1],
                self.shared,
            )
            start = stop


def place_row(sample: Sample, placement: Placement, max_new_tokens: int) -> PlacedRow:
    """What the passes have to know of a row."""
    shape = sample.shape
    columns = np.empty((6, sample.num_tokens), dtype=np.int64)
    columns[ID] = sample.token_ids
    columns[POSITION] = shape.positions
    columns[SEEN] = (placement.row << PART_BITS) + shape.seen_parts
    columns[OWN] = (placement.row << PART_BITS) + shape.slot_parts[shape.slots]
    columns[ORDER] = shape.first_order + shape.slots
    columns[SLOT] = placement.slots[shape.slots]
    blocks = placement.blocks[row_blocks(shape, max_new_tokens).prompt]
    return PlacedRow(columns, shape.biases, shape.cue_ends, blocks)


def context_stream(token_ids: Sequence[int], pool: KVPool) -> Stream:
    """The context that all rows share, at positions 0..C-1."""
    C = len(token_ids)
    index = np.arange(C)
    code = np.full(C, CONTEXT_CODE)
    columns = np.stack([np.asarray(token_ids), index, code, code, index, pool.context_slots])
    return Stream(
        columns,
        np.zeros((2, C), dtype=np.float32),
        np.zeros(C, dtype=np.int64),
        np.array([C - 1]),
        [pool.context_blocks],
        NO_BLOCKS,
    )


def rows_stream(rows: Sequence[PlacedRow], shared: BlockLists) -> Stream:
    """Many rows' tokens, one row behind the other."""
    lengths = [row.columns.shape[1] for row in rows]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return Stream(
        np.concatenate([row.columns for row in rows], axis=1),
        np.concatenate([row.biases for row in rows], axis=1),
        np.repeat(np.arange(len(rows)), lengths),
        np.concatenate([row.ends + start for row, start in zip(rows, starts, strict=True)]),
        [row.blocks for row in rows],
        shared,
    )


@torch.no_grad()
def copy_context(
    model: LlamaForCausalLM, pool: KVPool, samples: Sequence[Sample], placements: Sequence[Placement]
) -> None:
    """Write rows' rotated copies of the context into their slots, in all layers."""
    C = len(pool.context_slots)
    copies = [s.shape.copy_slots for s in samples]
    if not C or not any(map(len, copies)):
        return
    offsets = np.concatenate(copies)
    slots = np.concatenate(
        [p.slots[(c[:, None] + np.arange(C)).reshape(-1)] for c, p in zip(copies, placements, strict=True)]
    )
    source = to_device(pool.context_slots, pool.device)
    for start in range(0, len(offsets), COPIES_AT_ONCE):
        part = slice(start, start + COPIES_AT_ONCE)
        offsets_M = to_device(offsets[part], pool.device)
        target = to_device(slots[part.start * C : part.stop * C], pool.device)
        for keys, values in zip(pool.keys, pool.values, strict=True):
            rotated_MKCD = llama.rotate_keys(model, keys[:, source], offsets_M)
            keys[:, target] = rotated_MKCD.transpose(0, 1).flatten(1, 2)
            values[:, target] = values[:, source].repeat(1, len(offsets_M), 1)


class PrefillBatch:
    """One size of pass: the static tensors it reads, refreshed in place, and their mask.

    Args:
        bucket: tokens that a stream is padded to, a multiple of QUERY_TILE.
        biased: whether any row of the run has a bias (it decides on the graph, not the batch).
    """

    def __init__(self, bucket: int, pool: KVPool, *, biased: bool):
        assert bucket % QUERY_TILE == 0
        self.bucket, self.pool, self.biased = bucket, pool, biased
        device, tiles = pool.device, bucket // QUERY_TILE
        self.tables = QueryTables.zeros((1, bucket), device)
        self.block_counts = torch.zeros((2, 1, 1, tiles), dtype=torch.int32, device=device)
        self.block_indices = torch.zeros((2, 1, 1, tiles, pool.num_blocks), dtype=torch.int32, device=device)
        self.mask_mod = make_visible(self.tables, pool.tables)
        self.score_mod = make_biases(self.tables, pool.tables) if biased else None
        self.padding = np.zeros((6, bucket), dtype=np.int64)
        self.padding[[SEEN, OWN]] = PADDING_CODE
        self.padding[SLOT] = np.arange(bucket) % BLOCK_SIZE  # of the scratch block

    def load(
        self, stream: Stream, backend: Backend, cache: BlockMaskCache, calls: Tensor
    ) -> tuple[Tensor, Tensor, AttentionPlan]:
        """Token ids and positions, int64 [bucket], and how to attend."""
        S, device = len(stream), self.pool.device
        assert self.bucket >= S
        columns = self.padding.copy()
        columns[:, :S] = stream.columns
        ids, positions, seen, own, order, slots = to_device(columns, device)
        biases = None
        if self.biased:
            biases = to_device(np.pad(stream.biases, ((0, 0), (0, self.bucket - S))), device)
        self.tables.refresh(seen, own, order, biases)
        if backend != "flex":
            seen = np.concatenate([[0], stream.shared.full, stream.shared.partial, *stream.blocks])
            dense = dense_view(
                to_device(seen[None], device), BLOCK_SIZE, self.tables, self.pool.tables, biased=self.biased
            )
            return ids, positions, AttentionPlan(backend, slots, calls, dense=dense)
        rows = np.pad(stream.rows, (0, self.bucket - S), constant_values=len(stream.blocks))
        counts, indices = tile_blocks(rows, stream.shared, [*stream.blocks, np.zeros(1, dtype=np.int64)])
        self.block_counts.copy_(to_device(counts, device)[:, None, None])
        self.block_indices[..., : indices.shape[-1]] = to_device(indices, device)[:, None, None]
        return ids, positions, AttentionPlan(backend, slots, calls, self._mask(cache), self.score_mod)

    def _mask(self, cache: BlockMaskCache) -> BlockMask:
        return cache.get(
            ("prefill", self.bucket, self.pool.num_slots, BLOCK_SIZE, str(self.pool.device)),
            lambda: make_block_mask(
                self.block_counts,
                self.block_indices,
                query_tokens=self.bucket,
                block_size=BLOCK_SIZE,
                mask_mod=self.mask_mod,
            ),
        )


@torch.no_grad()
def prefill(
    model: LlamaForCausalLM,
    batch: PrefillBatch,
    stream: Stream,
    *,
    backend: Backend,
    cache: BlockMaskCache,
    calls: Tensor,
) -> Tensor:
    """One pass: write the stream's K/V into the pool.

    Returns:
        Hidden states before the last norm, [N, hidden], of the N tokens that answers begin at.
    """
    ids, positions, plan = batch.load(stream, backend, cache, calls)
    pool = batch.pool
    hidden = llama.forward(model, ids[None], positions[None], plan, pool.keys, pool.values)[0]
    return hidden[to_device(stream.ends, pool.device)]
