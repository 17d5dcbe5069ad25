"""Batched decoding: one token for each row a step, argmax and stopping on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers import LlamaForCausalLM

from flexray.engine import llama
from flexray.engine.attention import AttentionPlan, DenseView
from flexray.engine.kv_pool import BLOCK_SIZE, PADDING_SAMPLE, KVPool, Placement
from flexray.engine.transfer import to_device
from flexray.masks.block_mask import BlockLists, BlockMaskCache, make_block_mask
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
        # [2, ...]: partial blocks, full blocks. Of the partial ones a row looks at the first
        # `other_blocks + blocks that its used slots reach into`.
        self.block_indices = zeros(2, R + 1, pool.num_blocks, dtype=torch.int32)
        self.full_blocks = zeros(R + 1, dtype=torch.int32)
        self.other_blocks = zeros(R + 1, dtype=torch.int32)
        self.other_blocks[R] = 1  # the scratch block
        self.num_prompt = zeros(R + 1)

    def admit(
        self,
        samples: Sequence[SampleLayout],
        placements: Sequence[Placement],
        context: BlockLists,
        first_tokens: Tensor,
        stop: Tensor,
    ) -> None:
        """Rows that are prefilled and have their first token, int64 [N].

        Args:
            context: the blocks of the context that the rows share.
        """
        lists = [_decode_blocks(s, p, context) for s, p in zip(samples, placements, strict=True)]
        indices = np.zeros((2, len(samples), self.block_indices.shape[2]), dtype=np.int32)
        for i, blocks in enumerate(lists):
            indices[0, i, : len(blocks.partial)] = blocks.partial
            indices[1, i, : len(blocks.full)] = blocks.full
        numbers = [
            (
                p.row,
                len(b.full),
                len(b.partial) - len(p.blocks),
                p.num_prompt,
                s.answer_position,
                s.answer_order,
            )
            for s, p, b in zip(samples, placements, lists, strict=True)
        ]
        device = self.token.device
        rows, full, others, num_prompt, position, order = to_device(np.asarray(numbers).T, device)
        self.block_indices[:, rows] = to_device(indices, device)
        self.full_blocks[rows] = full.int()
        self.other_blocks[rows] = others.int()
        self.num_prompt[rows] = num_prompt
        self.position[rows] = position
        self.order[rows] = order.int()
        self.slots[rows] = to_device(np.stack([p.slots[-self.max_new_tokens :] for p in placements]), device)
        bias = np.asarray([s.context_bias for s in samples], dtype=np.float32)
        self.context_bias[rows] = to_device(bias, device)
        self.token[rows] = first_tokens
        self.output[rows, 0] = first_tokens
        self.produced[rows] = 1
        self.done[rows] = stop[first_tokens] | (self.max_new_tokens == 1)

    def block_counts(self, rows: Tensor) -> Tensor:
        """int32 [2, B]: how many partial and full blocks rows look at, with the next token in its slot."""
        used = self.num_prompt[rows] + self.produced[rows]
        reached = (used + BLOCK_SIZE - 1).div(BLOCK_SIZE, rounding_mode="floor")
        return torch.stack([self.other_blocks[rows] + reached.int(), self.full_blocks[rows]])


def _decode_blocks(sample: SampleLayout, placement: Placement, context: BlockLists) -> BlockLists:
    """What an answer query looks at: full blocks have no slot that is free or of the answer."""
    whole = placement.num_prompt // BLOCK_SIZE
    full, partial = placement.blocks[:whole], placement.blocks[whole:]
    if sample.sees_context:
        full = np.concatenate([context.full, full])
        partial = np.concatenate([context.partial, partial])
    return BlockLists(full, partial)


class DecodeBatch:
    """One batch size of one backend: the static tensors a step reads, refreshed in place, and its mask."""

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
        self.block_counts = torch.zeros((2, size, 1, 1), dtype=torch.int32, device=device)
        self.block_indices = torch.zeros((2, size, 1, 1, pool.num_blocks), dtype=torch.int32, device=device)
        self.mask_mod = make_visible(self.tables, pool.tables)
        self.score_mod = make_context_bias(self.tables, pool.tables) if biased else None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.graph_mask: BlockMask | None = None  # the one that the CUDA graph reads
        self.warm = False

    def choose(self, rows: Sequence[int]) -> None:
        """Decode these rows of the pool from now on."""
        padded = [*rows, *[self.state.padding_row] * (self.size - len(rows))]
        self.rows.copy_(to_device(np.asarray(padded), self.rows.device))

    def block_mask(self, cache: BlockMaskCache) -> BlockMask:
        """The mask of this batch size over this pool: its tensors' contents follow the rows."""
        pool = self.pool
        return cache.get(
            ("decode", self.size, pool.num_slots, BLOCK_SIZE, str(pool.device)),
            lambda: make_block_mask(
                self.block_counts,
                self.block_indices,
                query_tokens=self.tables.sample.shape[1],
                block_size=BLOCK_SIZE,
                mask_mod=self.mask_mod,
            ),
        )

    def plan(self, block_mask: BlockMask | None, widest: int, calls: Tensor) -> AttentionPlan:
        """Refresh the tables from the rows' state, and say how to attend.

        Args:
            widest: the most blocks, partial or full, that any of the rows looks at.
        """
        state, rows, pool = self.state, self.rows, self.pool
        self.tables.sample.copy_(state.sample[rows, None].expand_as(self.tables.sample))
        self.tables.order.copy_(state.order[rows, None].expand_as(self.tables.order))
        self.tables.context_bias.copy_(state.context_bias[rows, None].expand_as(self.tables.context_bias))
        self.block_counts.copy_(state.block_counts(rows)[:, :, None, None])
        self.block_indices.copy_(state.block_indices[:, rows, None, None])
        write_slots = state.slots[rows, state.produced[rows] - 1]
        if self.backend == "flex":
            return AttentionPlan("flex", write_slots, calls, block_mask, self.score_mod, fold_heads=True)
        # unused block indices are 0, the scratch block, which no real row sees
        blocks = self.block_indices[:, :, 0, 0, :widest].transpose(0, 1).flatten(1).long()
        slots_BL = (blocks[:, :, None] * BLOCK_SIZE + torch.arange(BLOCK_SIZE, device=pool.device)).flatten(1)
        dense = DenseView(
            slots_BL,
            dense_mask(self.tables, pool.tables, slots_BL),
            dense_context_bias(self.tables, pool.tables, slots_BL) if self.biased else None,
        )
        return AttentionPlan(self.backend, write_slots, calls, dense=dense)


@torch.no_grad()
def decode(
    model: LlamaForCausalLM,
    batch: DecodeBatch,
    stop: Tensor,
    cache: BlockMaskCache,
    widest: int,
    calls: Tensor,
) -> None:
    """Generate the next token of each row of the batch; on a GPU by replaying the step's CUDA graph."""
    if batch.backend != "flex":
        return _step(model, batch, stop, None, widest, calls)
    mask = batch.block_mask(cache)
    if not batch.rows.is_cuda or not batch.warm:
        batch.warm = True  # the first step compiles, which a capture must not
        return _step(model, batch, stop, mask, widest, calls)
    if batch.graph is None or batch.graph_mask is not mask:
        batch.graph, batch.graph_mask = torch.cuda.CUDAGraph(), mask
        with torch.cuda.graph(batch.graph):
            _step(model, batch, stop, mask, widest, calls)
    return batch.graph.replay()


def _step(
    model: LlamaForCausalLM,
    batch: DecodeBatch,
    stop: Tensor,
    block_mask: BlockMask | None,
    widest: int,
    calls: Tensor,
) -> None:
    """One token for each row. Rows that are done stay as they are.

    Args:
        stop: bool [V], tokens after which a row is done.
    """
    state, rows, pool = batch.state, batch.rows, batch.pool
    plan = batch.plan(block_mask, widest, calls)
    hidden = llama.forward(
        model, state.token[rows, None], state.position[rows, None], plan, pool.keys, pool.values
    )
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
