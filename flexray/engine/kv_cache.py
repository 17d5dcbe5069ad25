"""The paged KV cache: blocks of slots that requests hold for as long as they are answered.

    slots   [ scratch block | context blocks | request blocks ............ ]   P in all, one K/V slot a token

Paging as in vLLM (Kwon et al. 2023, arXiv:2309.06180); the block tables become the BlockMask's indices, so
FlexAttention reads the blocks where they are and the context is stored once for all requests. Block 0 is
scratch: padding writes there and sees only itself, hence is always finite and seen by nobody.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flexray.masks.block_masks import BlockLists
from flexray.masks.layout import CONTEXT_ID, FIRST_ANSWER, MAX_REQUESTS, SEGMENT_BITS, Layout, PackedPrompt
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


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy to the device without waiting for it. From pinned memory the copy queues up behind the device's
    work while the host goes on; from pageable memory the host would wait until all of that is done."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


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
        free = torch.full((num_slots,), FREE_ID, dtype=torch.int32, device=device)
        self.tables = KeyTables(free, torch.zeros_like(free))
        self.tables.segment_id[:BLOCK_SIZE] = PADDING_ID
        self.context_blocks = np.zeros(0, dtype=np.int64)
        self.context_slots = np.zeros(0, dtype=np.int64)
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

    def allocate_context(self, num_tokens: int) -> None:
        """Reserve the slots of the context that all requests share. Called once."""
        assert len(self.context_blocks) == 0, "the context has its blocks already"
        self.context_blocks, slots = self._take(blocks_for(num_tokens))
        self.context_slots = slots[:num_tokens]
        self._write(slots, _columns(len(slots), np.full(num_tokens, CONTEXT_ID), first_causal_index=0))

    @property
    def context_lists(self) -> BlockLists:
        """The context's blocks: full ones are seen whole, the last one may have room left."""
        whole = len(self.context_slots) // BLOCK_SIZE
        return BlockLists(self.context_blocks[:whole], self.context_blocks[whole:])

    def allocate(self, prompts: Sequence[PackedPrompt]) -> list[BlockTable]:
        """Give requests their blocks, as many of `prompts`, from the first on, as there is room for, and
        write into the tables who will be in each slot.

        The slots of tokens not yet generated get their causal index too: until then it is higher than any
        query's, hence they are masked, and decoding need not touch the tables.
        """
        block_tables, slots, columns = [], [], []
        for prompt in prompts:
            layout = prompt.layout
            count = blocks_for(layout.num_slots)
            if not self._free_requests or count > len(self._free_blocks):
                break
            request = self._free_requests.pop()
            blocks, own = self._take(count)
            block_tables.append(BlockTable(request, blocks, own[: layout.num_slots]))
            slots.append(own)
            ids = (request << SEGMENT_BITS) + layout.slot_segments
            columns.append(_columns(len(own), ids, layout.first_causal_index))
        if block_tables:
            self._write(np.concatenate(slots), np.concatenate(columns, axis=1))
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

    def _free_all(self) -> None:
        first = 1 + len(self.context_blocks)  # they are the first ones taken
        self._free_blocks = np.arange(self.num_blocks - 1, first - 1, -1)  # a stack
        self._free_requests = list(range(self.max_requests - 1, -1, -1))

    def _take(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        keep = len(self._free_blocks) - count
        blocks, self._free_blocks = self._free_blocks[keep:][::-1], self._free_blocks[:keep]
        return blocks, (blocks[:, None] * BLOCK_SIZE + np.arange(BLOCK_SIZE)).reshape(-1)

    def _write(self, slots: np.ndarray, columns: np.ndarray) -> None:
        index, (segment_id, causal_index) = to_device(slots, self.device), to_device(columns, self.device)
        self.tables.segment_id[index] = segment_id
        self.tables.causal_index[index] = causal_index


def _columns(num_slots: int, segment_ids: np.ndarray, first_causal_index: int) -> np.ndarray:
    """int32 [2, num_slots]: segment id and causal index of each slot; those left over are free."""
    columns = np.zeros((2, num_slots), dtype=np.int32)
    columns[0, len(segment_ids) :] = FREE_ID
    columns[0, : len(segment_ids)] = segment_ids
    columns[1, : len(segment_ids)] = np.arange(first_causal_index, first_causal_index + len(segment_ids))
    return columns


@dataclass(frozen=True, slots=True)
class LayoutBlocks:
    """Which of a request's blocks its passes may look at, by number, counted from its first one."""

    prompt: np.ndarray  # int64, that hold its copies of the context and its own tokens
    sequences: tuple[BlockLists, ...]
    """For each sequence: full ones, of which it sees every slot, and partial ones; of those the last
    `answers` are the ones that its generated tokens will fill."""
    answers: tuple[int, ...]


@functools.lru_cache(maxsize=4096)
def layout_blocks(layout: Layout, max_new_tokens: int) -> LayoutBlocks:
    """Work out once, for all requests of a layout, which blocks are looked at."""
    segments = np.pad(layout.slot_segments, (0, -layout.num_slots % BLOCK_SIZE)).reshape(-1, BLOCK_SIZE)
    filled = np.ones(layout.num_slots, dtype=bool)
    for first in layout.answer_slots:
        filled[first : first + max_new_tokens] = False
    prompt = np.pad(filled, (0, segments.size - layout.num_slots)).reshape(segments.shape)
    sequences, answers = [], []
    for number, (scope, first) in enumerate(zip(layout.scopes, layout.answer_slots, strict=True)):
        seen = (
            (segments < FIRST_ANSWER)
            if scope.paraphrase is None
            else segments == layout.paraphrase_segments[scope.paraphrase]
        )
        seen = (seen | (segments == FIRST_ANSWER + number)) & prompt
        full = np.flatnonzero(seen.all(axis=1))
        answer = np.arange(first // BLOCK_SIZE, (first + max_new_tokens - 1) // BLOCK_SIZE + 1)
        others = np.setdiff1d(np.flatnonzero(seen.any(axis=1)), np.concatenate([full, answer]))
        sequences.append(BlockLists(full, np.concatenate([others, answer])))
        answers.append(len(answer))
    return LayoutBlocks(np.flatnonzero(prompt.any(axis=1)), tuple(sequences), tuple(answers))
