"""The paged KV cache: blocks of slots that requests hold for as long as they are answered.

    slots   [ scratch block | context blocks | request blocks ............ ]   P in all, one K/V slot a token

Paging as in vLLM (Kwon et al. 2023, arXiv:2309.06180); the block tables become the BlockMask's indices, so
FlexAttention reads the blocks where they are and the context is stored once for all requests. Block 0 is
scratch: padding writes there and is seen by padding only. A broken row's prefill may leave numbers there that
are not finite; see `zero_scratch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from flexray.engine.transfers import to_device
from flexray.masks.block_masks import BlockLists
from flexray.masks.layout import MAX_REQUESTS, SEGMENT_BITS, PackedPrompt
from flexray.masks.runs import FIRST, LAST, LENGTH, count_each, tabulate
from flexray.masks.shared_context import SharedContext
from flexray.masks.visibility import KeyTables

BLOCK_SIZE = 32
"""Slots in a block."""

PADDING_ID = (MAX_REQUESTS - 1) << SEGMENT_BITS | 1
FREE_ID = (MAX_REQUESTS - 2) << SEGMENT_BITS | 1


@dataclass(frozen=True, slots=True)
class BlockTable:
    """Where one request lives in the cache."""

    request: int  # its number in the cache, part of its segment ids
    blocks: np.ndarray  # int64 [num blocks], in the order of the request's slots
    slots: np.ndarray  # int64 [num_slots], where in the cache each of the request's slots is


def blocks_for(num_tokens: int) -> int:
    """Blocks that hold `num_tokens` slots."""
    return -(-num_tokens // BLOCK_SIZE)


def context_size(context: SharedContext) -> int:
    """The slots that a context takes: its head begins a block, so that requests can leave it out."""
    return (blocks_for(context.num_plain) + blocks_for(context.num_head)) * BLOCK_SIZE


def first_ids(block_tables: Sequence[BlockTable]) -> np.ndarray:
    """What makes a request's segments ids in the cache: to be added to them, int64."""
    return np.array([table.request for table in block_tables], dtype=np.int64) << SEGMENT_BITS


def all_slots(block_tables: Sequence[BlockTable]) -> tuple[np.ndarray, np.ndarray]:
    """The cache's slots of all requests, one request behind the other, and where each one's begin."""
    lengths = np.array([len(table.slots) for table in block_tables])
    return np.concatenate([table.slots for table in block_tables]), np.cumsum(lengths) - lengths


class KVCache:
    """Keys and values of all layers, [num_layers] x [K, P, D] each, and who owns each slot.

    Args:
        num_slots: P, a multiple of BLOCK_SIZE, scratch and context included.
        max_requests: requests that may hold blocks at once.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        num_slots: int,
        max_requests: int,
        dtype: torch.dtype,
        device: torch.device,
    ):
        assert num_slots % BLOCK_SIZE == 0
        shape = (num_kv_heads, num_slots, head_dim)
        # zeros, not empty: a masked slot is multiplied by 0, and 0 x NaN would be NaN
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self.num_slots, self.max_requests, self.device = num_slots, max_requests, device
        assert max_requests <= MAX_REQUESTS - 2
        ids = torch.full((num_slots,), FREE_ID, dtype=torch.int32, device=device)
        ids[:BLOCK_SIZE] = PADDING_ID
        self.tables = KeyTables.of(ids, ids, torch.zeros_like(ids))
        self.context_blocks = np.zeros(0, dtype=np.int64)
        self.context_slots = np.zeros(0, dtype=np.int64)
        self.num_head = 0  # context tokens that are the head of paraphrases
        self._free_blocks = np.zeros(0, dtype=np.int64)
        self._free_requests: list[int] = []
        self._free_all()

    @property
    def num_blocks(self) -> int:
        """All blocks, scratch and context included."""
        return self.num_slots // BLOCK_SIZE

    @property
    def num_free_blocks(self) -> int:
        """Blocks that requests can get."""
        return len(self._free_blocks)

    @property
    def num_held(self) -> int:
        """Requests that hold blocks."""
        return self.max_requests - len(self._free_requests)

    def allocate_context(self, context: SharedContext) -> None:
        """Reserve the slots of the context that requests share. Called once."""
        assert len(self.context_blocks) == 0, "the context has its blocks already"
        C, head = context.num_plain, context.num_head
        self.context_blocks, slots = self._take(context_size(context) // BLOCK_SIZE)
        place = np.arange(len(context))
        place[C:] += blocks_for(C) * BLOCK_SIZE - C
        self.context_slots, self.num_head = slots[place], head
        columns = _free_columns(len(slots))
        columns[:2, place] = context.tokens[0]
        columns[2, place] = np.arange(len(context))
        self._write(slots, columns)

    @property
    def num_plain(self) -> int:
        """Tokens of the context without the head."""
        return len(self.context_slots) - self.num_head

    @property
    def plain_context(self) -> tuple[int, int]:
        """The slots of the context's full blocks, without the head's: first, and behind the last. All that is
        added to a query's scores against them is its bias against the context."""
        first = BLOCK_SIZE  # behind the scratch block
        return first, first + self.num_plain // BLOCK_SIZE * BLOCK_SIZE

    def context_lists(self, *, head: bool, apart: tuple[int, int] | None = None) -> BlockLists:
        """The context's blocks: full ones are seen whole, others have room left.

        Args:
            head: with those of the head.
            apart: slots that are left out, `plain_context`.
        """
        first = 0 if apart is None else (apart[1] - apart[0]) // BLOCK_SIZE
        parts = [(first, self.num_plain // BLOCK_SIZE, blocks_for(self.num_plain))]
        if head:
            begin = blocks_for(self.num_plain)
            parts.append((begin, begin + self.num_head // BLOCK_SIZE, len(self.context_blocks)))
        full = [self.context_blocks[begin:whole] for begin, whole, _ in parts]
        partial = [self.context_blocks[whole:end] for _, whole, end in parts]
        return BlockLists(np.concatenate(full), np.concatenate(partial))

    def allocate(self, prompts: Sequence[PackedPrompt]) -> list[BlockTable]:
        """Give requests their blocks, as many of `prompts`, from the first on, as there is room for, and
        write into the tables who will be in each slot. All prompts have one context and shared prefix.

        The slots of tokens not yet generated get their causal index too: until then it is higher than any
        query's, hence they are masked, and decoding need not touch the tables.
        """
        counts: list[int] = []
        room = len(self._free_blocks)
        for prompt in prompts[: len(self._free_requests)]:
            count = blocks_for(prompt.layout.num_slots)
            if count > room:
                break
            counts.append(count)
            room -= count
        if not counts:
            return []
        layouts = [prompt.layout for prompt in prompts[: len(counts)]]
        blocks, slots = self._take(sum(counts))
        ends = np.cumsum(counts).tolist()
        block_tables = [
            BlockTable(
                self._free_requests.pop(),
                blocks[end - count : end],
                slots[(end - count) * BLOCK_SIZE :][: layout.num_slots],
            )
            for layout, count, end in zip(layouts, counts, ends, strict=True)
        ]
        runs, request = tabulate([layout.runs for layout in layouts])
        runs[:, [FIRST, LAST]] += first_ids(block_tables)[request, None]
        num_slots = np.array([layout.num_slots for layout in layouts])
        order = count_each(num_slots)
        place = np.repeat((np.array(ends) - counts) * BLOCK_SIZE, num_slots) + order
        columns = _free_columns(len(slots))
        columns[0, place] = np.repeat(runs[:, FIRST], runs[:, LENGTH])
        columns[1, place] = np.repeat(runs[:, LAST], runs[:, LENGTH])
        columns[2, place] = layouts[0].first_causal_index + order
        self._write(slots, columns)
        return block_tables

    def free(self, block_tables: Sequence[BlockTable]) -> None:
        """Take requests' blocks back. An empty cache hands them out in order again: a request's blocks then
        lie side by side."""
        self._free_requests.extend(table.request for table in block_tables)
        self._free_blocks = np.concatenate([self._free_blocks, *(t.blocks[::-1] for t in block_tables)])
        if not self.num_held:
            self._free_all()

    def zero(self, block_tables: Sequence[BlockTable]) -> None:
        """Overwrite the keys and values of blocks that hold numbers that are not finite: whoever gets them
        next multiplies the slots that it has not yet written by 0."""
        blocks = np.concatenate([table.blocks for table in block_tables])
        slots = (blocks[:, None] * BLOCK_SIZE + np.arange(BLOCK_SIZE)).reshape(-1)
        index = to_device(slots, self.device)
        for layer in (*self.keys, *self.values):
            layer.index_fill_(1, index, 0)

    def zero_scratch(self) -> None:
        """The same for the scratch block: a dense backend fills up its rows with it, and so multiplies by 0
        what the last token of a broken prompt has written there."""
        for layer in (*self.keys, *self.values):
            layer[:, :BLOCK_SIZE].zero_()

    def _free_all(self) -> None:
        first = 1 + len(self.context_blocks)  # they are the first ones taken
        self._free_blocks = np.arange(self.num_blocks - 1, first - 1, -1)  # a stack
        self._free_requests = list(range(self.max_requests - 1, -1, -1))

    def _take(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        keep = len(self._free_blocks) - count
        blocks, self._free_blocks = self._free_blocks[keep:][::-1], self._free_blocks[:keep]
        return blocks, (blocks[:, None] * BLOCK_SIZE + np.arange(BLOCK_SIZE)).reshape(-1)

    def _write(self, slots: np.ndarray, columns: np.ndarray) -> None:
        self.tables.write(to_device(slots, self.device), KeyTables.of(*to_device(columns, self.device)))


def _free_columns(num_slots: int) -> np.ndarray:
    """int32 [3, num_slots]: for each slot the first and the last segment id and the causal index."""
    columns = np.full((3, num_slots), FREE_ID, dtype=np.int32)
    columns[2] = 0
    return columns
