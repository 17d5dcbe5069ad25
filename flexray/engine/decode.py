"""Batched decoding: one token for each row a step, argmax and stopping on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from flexray.engine import llama
from flexray.engine.attention import AttentionPlan, DenseView
from flexray.engine.kv_pool import BLOCK_SIZE, PADDING_SAMPLE, KVPool, Placement
from flexray.engine.prefill import visible_blocks
from flexray.masks.block_mask import BlockMaskCache, make_block_mask
from flexray.masks.layout import ANSWER, SampleLayout
from flexray.masks.visibility import (
    QueryTables,
    dense_context_bias,
    dense_mask,
    make_context_bias,
    make_visible,
)
from flexray.types import Backend


class DecodeState:
    """Where each row of the pool stands, on the device; `R + 1` rows, the last one for padding."""

    def __init__(self, pool: KVPool, max_new_tokens: int):
        R, device = pool.max_rows, pool.device

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.padding_row = R
        self.max_new_tokens = max_new_tokens
        self.sample = torch.arange(R + 1, dtype=torch.int32, device=device)
        self.sample[R] = PADDING_SAMPLE
        self.token = zeros(R + 1)  # the last one generated; its K/V are written by the next step
        self.position = zeros(R + 1)
        self.order = zeros(R + 1, dtype=torch.int32)
        self.produced = zeros(R + 1)  # tokens generated
        self.done = torch.ones(R + 1, dtype=torch.bool, device=device)
        self.output = zeros(R + 1, max_new_tokens)
        self.slots = zeros(R + 1, max_new_tokens)  # where each generated token's K/V go
        self.context_bias = zeros(R + 1, dtype=torch.float32)
        self.block_counts = zeros(R + 1, dtype=torch.int32)
        self.block_counts[R] = 1  # the scratch block
        self.block_indices = zeros(R + 1, pool.num_blocks, dtype=torch.int32)

    def admit(
        self,
        samples: Sequence[SampleLayout],
        placements: Sequence[Placement],
        context_blocks: np.ndarray,
        first_tokens: Tensor,
        stop: Tensor,
    ) -> None:
        """Rows that are prefilled and have their first token, int64 [N]."""
        device = self.token.device
        rows = torch.tensor([p.row for p in placements], device=device)
        indices = np.zeros((len(samples), self.block_indices.shape[1]), dtype=np.int32)
        counts = np.zeros(len(samples), dtype=np.int32)
        for i, (sample, placement) in enumerate(zip(samples, placements, strict=True)):
            blocks = visible_blocks(sample, placement, context_blocks)
            counts[i] = len(blocks)
            indices[i, : len(blocks)] = blocks
        slots = np.stack([p.slots[-self.max_new_tokens :] for p in placements])
        self.block_counts[rows] = torch.from_numpy(counts).to(device)
        self.block_indices[rows] = torch.from_numpy(indices).to(device)
        self.slots[rows] = torch.from_numpy(slots).to(device)
        self.position[rows] = torch.tensor([s.answer_position for s in samples], device=device)
        self.order[rows] = torch.tensor([s.answer_order for s in samples], device=device, dtype=torch.int32)
        self.context_bias[rows] = torch.tensor([s.context_bias for s in samples], device=device)
        self.token[rows] = first_tokens
        self.output[rows, 0] = first_tokens
        self.produced[rows] = 1
        self.done[rows] = stop[first_tokens] | (self.max_new_tokens == 1)


class DecodeBatch:
    """The static tensors of one batch size: what a step reads, refreshed in place, and its mask."""

    def __init__(
        self, size: int, state: DecodeState, pool: KVPool, *, backend: Backend, group: int, biased: bool
    ):
        self.size, self.state, self.pool, self.backend, self.biased = size, state, pool, backend, biased
        device = pool.device
        self.rows = torch.full((size,), state.padding_row, dtype=torch.int64, device=device)
        # folded heads are query tokens: each of the G copies of a row has the row's tables
        width = group if backend == "flex" else 1
        shape = (size, width)
        self.tables = QueryTables(
            sample=torch.zeros(shape, dtype=torch.int32, device=device),
            segment=torch.full(shape, ANSWER, dtype=torch.int32, device=device),
            order=torch.zeros(shape, dtype=torch.int32, device=device),
            context_bias=torch.zeros(shape, dtype=torch.float32, device=device),
        )
        self.block_counts = torch.zeros((size, 1, 1), dtype=torch.int32, device=device)
        self.block_indices = torch.zeros((size, 1, 1, pool.num_blocks), dtype=torch.int32, device=device)
        self.mask_mod = make_visible(self.tables, pool.tables)
        self.score_mod = make_context_bias(self.tables, pool.tables) if biased else None

    def choose(self, rows: Sequence[int]) -> None:
        """Decode these rows of the pool from now on."""
        padded = [*rows, *[self.state.padding_row] * (self.size - len(rows))]
        self.rows.copy_(torch.tensor(padded))

    def plan(self, cache: BlockMaskCache, widest: int, calls: Tensor) -> AttentionPlan:
        """Refresh the tables from the rows' state, and say how to attend.

        Args:
            widest: the most blocks any of the rows looks at.
        """
        state, rows = self.state, self.rows
        self.tables.sample.copy_(state.sample[rows, None].expand_as(self.tables.sample))
        self.tables.order.copy_(state.order[rows, None].expand_as(self.tables.order))
        self.tables.context_bias.copy_(state.context_bias[rows, None].expand_as(self.tables.context_bias))
        self.block_counts.copy_(state.block_counts[rows, None, None])
        self.block_indices.copy_(state.block_indices[rows, None, None])
        write_slots = state.slots[rows, state.produced[rows] - 1]
        pool = self.pool
        if self.backend == "flex":
            block_mask = cache.get(
                ("decode", id(self), self.size, BLOCK_SIZE, str(pool.device)),
                lambda: make_block_mask(
                    self.block_counts,
                    self.block_indices,
                    query_tokens=self.tables.sample.shape[1],
                    block_size=BLOCK_SIZE,
                    mask_mod=self.mask_mod,
                ),
            )
            return AttentionPlan(
                "flex", pool.keys, pool.values, write_slots, block_mask, self.score_mod, fold_heads=True, calls=calls
            )
        # unused block indices are 0, the scratch block, which no real row sees
        blocks = self.block_indices[:, 0, 0, :widest].long()
        slots_BL = (blocks[:, :, None] * BLOCK_SIZE + torch.arange(BLOCK_SIZE, device=pool.device)).flatten(1)
        dense = DenseView(
            slots_BL,
            dense_mask(self.tables, pool.tables, slots_BL),
            dense_context_bias(self.tables, pool.tables, slots_BL) if self.biased else None,
        )
        return AttentionPlan(self.backend, pool.keys, pool.values, write_slots, dense=dense, calls=calls)


@torch.no_grad()
def decode_step(
    model: nn.Module, batch: DecodeBatch, stop: Tensor, cache: BlockMaskCache, widest: int, calls: Tensor
) -> None:
    """Generate the next token of each row of the batch. Rows that are done stay as they are.

    Args:
        stop: bool [V], tokens after which a row is done.
    """
    state, rows = batch.state, batch.rows
    plan = batch.plan(cache, widest, calls)
    hidden = llama.forward(model, state.token[rows, None], state.position[rows, None], plan)
    best = llama.logits(model, hidden[:, 0]).argmax(-1)

    going = ~state.done[rows]
    token = torch.where(going, best, state.token[rows])
    produced = state.produced[rows] + going
    state.output[rows, (produced - 1).clamp_min(0)] = token
    state.token[rows] = token
    state.position[rows] += going
    state.order[rows] += going.int()
    state.produced[rows] = produced
    state.done[rows] |= stop[token] | (produced >= state.max_new_tokens)
