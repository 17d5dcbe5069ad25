"""Batched decoding: one token for each branch a step; choosing tokens and stopping are on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers import LlamaForCausalLM

from flexray.engine import llama
from flexray.engine.attention import AttentionPlan, dense_view
from flexray.engine.choosing import Fuser, choose_tokens
from flexray.engine.decode_state import DecodeState
from flexray.engine.kv_pool import BLOCK_SIZE, KVPool
from flexray.engine.transfer import to_device
from flexray.masks.block_mask import BlockMaskCache, make_block_mask
from flexray.masks.visibility import QueryTables, make_biases, make_visible
from flexray.methods import DRAWN, TOGETHER, Choice
from flexray.types import Backend


class DecodeBatch:
    """One batch size of one backend: the static tensors a step reads, refreshed in place, and its mask.

    Args:
        choice: how its branches choose their tokens.
        group: query heads for each key/value head.
    """

    def __init__(
        self,
        size: int,
        state: DecodeState,
        pool: KVPool,
        *,
        backend: Backend,
        choice: Choice,
        group: int,
        biased: bool,
    ):
        self.size, self.state, self.pool = size, state, pool
        self.backend, self.choice, self.biased = backend, choice, biased
        device = pool.device
        self.chosen: tuple[int, ...] = ()
        self.places = torch.full((size,), state.padding_place, dtype=torch.int64, device=device)
        self.fuser = Fuser(size, device) if choice in TOGETHER else None
        # folded heads are query tokens: each of the G copies of a branch has the branch's tables
        self.tables = QueryTables.zeros((size, group if backend == "flex" else 1), device)
        self.block_counts = torch.zeros((2, size, 1, 1), dtype=torch.int32, device=device)
        self.block_indices = torch.zeros((2, size, 1, 1, pool.num_blocks), dtype=torch.int32, device=device)
        self.mask_mod = make_visible(self.tables, pool.tables)
        self.score_mod = make_biases(self.tables, pool.tables) if biased else None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.graph_mask: BlockMask | None = None  # the one that the CUDA graph reads
        self.warm = False

    def choose(
        self, places: Sequence[int], groups: Sequence[int] = (), weights: Sequence[float] = ()
    ) -> None:
        """Decode these branches from now on; those of one group choose their tokens together."""
        state = self.state
        if self.chosen == (state.admissions, *places):
            return  # the same branches as before
        self.chosen = (state.admissions, *places)
        padded = [*places, *[state.padding_place] * (self.size - len(places))]
        self.places.copy_(to_device(np.asarray(padded), self.places.device))
        codes, biases = state.codes[:, self.places, None], state.biases[:, self.places, None]
        self.tables.refresh(codes[0], codes[1], state.order[self.places, None], biases)
        self.block_indices.copy_(state.block_indices[:, self.places, None, None])
        if self.fuser is not None:
            self.fuser.choose(groups, weights)

    def block_mask(self, cache: BlockMaskCache) -> BlockMask:
        """The mask of this batch size over this pool: its tensors' contents follow the branches."""
        pool = self.pool
        return cache.get(
            ("decode", self.size, self.choice, pool.num_slots, BLOCK_SIZE, str(pool.device)),
            lambda: make_block_mask(
                self.block_counts,
                self.block_indices,
                query_tokens=self.tables.seen.shape[1],
                block_size=BLOCK_SIZE,
                mask_mod=self.mask_mod,
            ),
        )

    def plan(self, block_mask: BlockMask | None, widest: int, calls: Tensor) -> AttentionPlan:
        """Refresh what a step has changed, and say how to attend.

        Args:
            widest: the most blocks, partial or full, that any of the branches looks at.
        """
        state, places, pool = self.state, self.places, self.pool
        self.tables.order.copy_(state.order[places, None].expand_as(self.tables.order))
        self.block_counts.copy_(state.block_counts(places)[:, :, None, None])
        write_slots = state.slots[places, state.produced[places] - 1]
        if self.backend == "flex":
            return AttentionPlan("flex", write_slots, calls, block_mask, self.score_mod, fold_heads=True)
        # unused block indices are 0, the scratch block, which no real branch sees
        blocks = self.block_indices[:, :, 0, 0, :widest].transpose(0, 1).flatten(1).long()
        dense = dense_view(blocks, BLOCK_SIZE, self.tables, pool.tables, biased=self.biased)
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
    """Generate the next token of each branch of the batch; on a GPU by replaying the step's CUDA graph."""
    if batch.backend != "flex":
        return _step(model, batch, stop, None, widest, calls)
    mask = batch.block_mask(cache)
    if not batch.places.is_cuda or not batch.warm:
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
    """One token for each branch. Those that are done stay as they are.

    Args:
        stop: bool [V], tokens after which a branch is done.
    """
    state, places, pool = batch.state, batch.places, batch.pool
    plan = batch.plan(block_mask, widest, calls)
    hidden = llama.forward(
        model, state.token[places, None], state.position[places, None], plan, pool.keys, pool.values
    )
    chances = state.chances(places) if batch.choice in DRAWN else None
    chosen = choose_tokens(llama.logits(model, hidden[:, 0]), batch.choice, batch.fuser, chances)

    going = ~state.done[places]
    token = torch.where(going, chosen, state.token[places])
    produced = state.produced[places] + going
    state.output[places, (produced - 1).clamp_min(0)] = token
    state.token[places] = token
    state.position[places] += going
    state.order[places] += going
    state.produced[places] = produced
    state.done[places] |= stop[token] | (produced >= state.max_new_tokens)
