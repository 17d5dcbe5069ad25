"""Batched decoding: one token for each branch a step; choosing tokens and stopping are on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from transformers import LlamaForCausalLM

from flexray.engine import llama
from flexray.engine.attention import AttentionPlan, DenseView
from flexray.engine.fusion import Fuser, choose_tokens
from flexray.engine.kv_pool import BLOCK_SIZE, PADDING_CODE, KVPool, Placement, row_blocks
from flexray.engine.transfer import to_device
from flexray.masks.block_mask import BlockLists, BlockMaskCache, make_block_mask
from flexray.masks.layout import FIRST_BRANCH, PART_BITS, Shape
from flexray.masks.visibility import QueryTables, dense_biases, dense_mask, make_biases, make_visible
from flexray.methods import Fusion
from flexray.types import Backend


class DecodeState:
    """Where each branch stands, on the device; `R + 1` places, the last one for padding.

    Args:
        max_branches: R, branches that may be on their way at once.
    """

    def __init__(self, pool: KVPool, max_branches: int, max_new_tokens: int):
        R, device = max_branches, pool.device

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.padding_place = R
        self.max_branches, self.max_new_tokens = max_branches, max_new_tokens
        self.codes = zeros(2, R + 1, dtype=torch.int32)  # seen and own, see QueryTables
        self.codes[:, R] = PADDING_CODE
        self.token = zeros(R + 1)  # the last one generated; its K/V are written by the next step
        self.position = zeros(R + 1)
        self.order = zeros(R + 1)
        self.produced = zeros(R + 1)  # tokens generated
        self.done = torch.ones(R + 1, dtype=torch.bool, device=device)
        self.output = zeros(R + 1, max_new_tokens)
        self.slots = zeros(R + 1, max_new_tokens)  # where each generated token's K/V go
        self.biases = zeros(2, R + 1, dtype=torch.float32)
        # [2, ...]: partial blocks, full blocks. Of the partial ones a branch looks at the first
        # `other_blocks`, and at those that its answer has reached; its first token stands at
        # `answer_offset` in the first of them.
        self.block_indices = zeros(2, R + 1, pool.num_blocks, dtype=torch.int32)
        self.full_blocks = zeros(R + 1)
        self.other_blocks = zeros(R + 1)
        self.answer_offset = zeros(R + 1)
        self.admissions = 0  # a place may have another branch after each
        self._free = list(range(R - 1, -1, -1))

    @property
    def num_free(self) -> int:
        """Branches that can be admitted."""
        return len(self._free)

    def admit(
        self, shapes: Sequence[Shape], placements: Sequence[Placement], context: BlockLists
    ) -> list[int]:
        """Give rows' branches their places; their first tokens are still to come (`start`).

        Args:
            context: the blocks of the context that the rows share.

        Returns:
            Their places, row by row.
        """
        self.admissions += 1
        numbers: list[tuple[int, ...]] = []
        lists: list[BlockLists] = []
        slots: list[np.ndarray] = []
        for shape, placement in zip(shapes, placements, strict=True):
            blocks = row_blocks(shape, self.max_new_tokens)
            code = placement.row << PART_BITS
            for b, own in enumerate(blocks.branches):
                full, partial = placement.blocks[own.full], placement.blocks[own.partial]
                if shape.sees_context:
                    full = np.concatenate([context.full, full])
                    partial = np.concatenate([context.partial, partial])
                lists.append(BlockLists(full, partial))
                first = int(shape.answer_slots[b])
                slots.append(placement.slots[first : first + self.max_new_tokens])
                numbers.append(
                    (
                        self._free.pop(),
                        code + int(shape.seen_parts[shape.cue_ends[b]]),
                        code + FIRST_BRANCH + b,
                        int(shape.answer_positions[b]),
                        shape.first_order + first,
                        len(full),
                        len(partial) - blocks.answers[b],
                        first % BLOCK_SIZE,
                    )
                )
        width = max(len(blocks) for pair in lists for blocks in (pair.full, pair.partial))
        indices = np.zeros((2, len(lists), width), dtype=np.int32)
        for i, pair in enumerate(lists):
            indices[0, i, : len(pair.partial)] = pair.partial
            indices[1, i, : len(pair.full)] = pair.full
        device = self.token.device
        columns = to_device(np.asarray(numbers).T, device)
        places = columns[0]
        self.codes[:, places] = columns[1:3].int()
        self.position[places], self.order[places] = columns[3], columns[4]
        self.full_blocks[places], self.other_blocks[places] = columns[5], columns[6]
        self.answer_offset[places] = columns[7]
        # fills, not assignments of a number: those copy it from the host, which then waits for the device
        self.block_indices.index_fill_(1, places, 0)  # dense backends read more of them than are counted
        self.block_indices[:, places, :width] = to_device(indices, device)
        self.slots[places] = to_device(np.stack(slots), device)
        biases = [s.biases[:, s.cue_ends] for s in shapes]
        self.biases[:, places] = to_device(np.concatenate(biases, axis=1), device)
        return [number[0] for number in numbers]

    def start(self, places: Tensor, first_tokens: Tensor, stop: Tensor) -> None:
        """Branches that are prefilled have their first token. int64 [N] each; stop: bool [V]."""
        self.token[places] = first_tokens
        self.output[places, 0] = first_tokens
        self.produced.index_fill_(0, places, 1)
        self.done[places] = stop[first_tokens]
        if self.max_new_tokens == 1:
            self.done.index_fill_(0, places, True)

    def leave(self, places: Sequence[int]) -> None:
        """Take places back."""
        self._free += places

    def block_counts(self, places: Tensor) -> Tensor:
        """int32 [2, B]: how many partial and full blocks branches look at, the next token's among them."""
        reached = (self.answer_offset[places] + self.produced[places] - 1).div(
            BLOCK_SIZE, rounding_mode="floor"
        ) + 1
        return torch.stack([self.other_blocks[places] + reached, self.full_blocks[places]]).int()


class DecodeBatch:
    """One batch size of one backend: the static tensors a step reads, refreshed in place, and its mask.

    Args:
        fusion: how its branches choose their tokens.
        group: query heads for each key/value head.
    """

    def __init__(
        self,
        size: int,
        state: DecodeState,
        pool: KVPool,
        *,
        backend: Backend,
        fusion: Fusion | None,
        group: int,
        biased: bool,
    ):
        self.size, self.state, self.pool, self.backend = size, state, pool, backend
        device = pool.device
        self.chosen: tuple[int, ...] = ()
        self.places = torch.full((size,), state.padding_place, dtype=torch.int64, device=device)
        self.fuser = None if fusion is None else Fuser(fusion, size, device)
        # folded heads are query tokens: each of the G copies of a branch has the branch's tables
        self.tables = QueryTables.zeros((size, group if backend == "flex" else 1), device)
        self.block_counts = torch.zeros((2, size, 1, 1), dtype=torch.int32, device=device)
        self.block_indices = torch.zeros((2, size, 1, 1, pool.num_blocks), dtype=torch.int32, device=device)
        self.mask_mod = make_visible(self.tables, pool.tables)
        self.score_mod = make_biases(self.tables, pool.tables) if biased else None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.graph_mask: BlockMask | None = None  # the one that the CUDA graph reads
        self.warm = False

    def choose(self, places: Sequence[int], groups: Sequence[int], weights: Sequence[float]) -> None:
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
        fusion = self.fuser.fusion if self.fuser else None
        return cache.get(
            ("decode", self.size, fusion, pool.num_slots, BLOCK_SIZE, str(pool.device)),
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
        slots_BL = (blocks[:, :, None] * BLOCK_SIZE + torch.arange(BLOCK_SIZE, device=pool.device)).flatten(1)
        dense = DenseView(
            slots_BL,
            dense_mask(self.tables, pool.tables, slots_BL),
            None if self.score_mod is None else dense_biases(self.tables, pool.tables, slots_BL),
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
    best = choose_tokens(llama.logits(model, hidden[:, 0]), batch.fuser)

    going = ~state.done[places]
    token = torch.where(going, best, state.token[places])
    produced = state.produced[places] + going
    state.output[places, (produced - 1).clamp_min(0)] = token
    state.token[places] = token
    state.position[places] += going
    state.order[places] += going
    state.produced[places] = produced
    state.done[places] |= stop[token] | (produced >= state.max_new_tokens)
