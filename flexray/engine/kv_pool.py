"""The paged KV pool: fixed-size blocks of slots that rows borrow for as long as they are answered.

    slots   [ scratch block | context blocks | row blocks ................ ]   P in all, one K/V slot a token

Paging as in vLLM (Kwon et al. 2023, arXiv:2309.06180); the block lists become the BlockMask's indices,
so FlexAttention reads the blocks where they are and the context is stored once for all rows.
Block 0 is scratch: padding writes there and sees only itself, hence is always finite and seen by nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from flexray.engine.transfer import to_device
from flexray.masks.block_mask import BlockLists
from flexray.masks.layout import ANSWER, CONTEXT, NOBODY, SampleLayout
from flexray.masks.visibility import KeyTables

BLOCK_SIZE = 64
"""Slots in a block."""

PADDING_SAMPLE = -1
CONTEXT_SAMPLE = -2
FREE_SAMPLE = -3


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one row lives in the pool."""

    row: int
    blocks: np.ndarray  # int64 [num blocks], in stream order
    slots: np.ndarray  # int64 [num_prompt + max_new_tokens], in stream order
    num_prompt: int  # slots of the prompt: copies of the context and own tokens

    @property
    def prompt_blocks(self) -> np.ndarray:
        """The blocks that hold the prompt, without those only the answer will reach."""
        return self.blocks[: blocks_for(self.num_prompt)]


def blocks_for(num_tokens: int) -> int:
    """Blocks that hold `num_tokens` slots."""
    return -(-num_tokens // BLOCK_SIZE)


class KVPool:
    """Keys and values of all layers, [num_layers] x [K, P, D] each, and who owns each slot.

    Args:
        num_slots: P, a multiple of BLOCK_SIZE, scratch and context included.
        max_rows: rows that may live in the pool at once.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        num_slots: int,
        max_rows: int,
        dtype: torch.dtype,
        device: torch.device,
    ):
        assert num_slots % BLOCK_SIZE == 0
        shape = (num_kv_heads, num_slots, head_dim)
        # zeros, not empty: a masked slot is multiplied by 0, and 0 x NaN would be NaN
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self.num_slots, self.max_rows, self.device = num_slots, max_rows, device
        nobody = torch.full((num_slots,), FREE_SAMPLE, dtype=torch.int32, device=device)
        self.tables = KeyTables(nobody, torch.full_like(nobody, NOBODY), torch.zeros_like(nobody))
        self.tables.sample[:BLOCK_SIZE] = PADDING_SAMPLE
        self.tables.segment[:BLOCK_SIZE] = ANSWER
        self.context_blocks = np.zeros(0, dtype=np.int64)
        self.context_slots = np.zeros(0, dtype=np.int64)
        self._free_blocks = np.zeros(0, dtype=np.int64)
        self._free_rows: list[int] = []
        self._free_all()

    @property
    def num_blocks(self) -> int:
        """All blocks, scratch and context included."""
        return self.num_slots // BLOCK_SIZE

    def place_context(self, num_tokens: int) -> None:
        """Reserve the slots of the context that all rows share. Called once."""
        assert len(self.context_blocks) == 0, "the context has a place already"
        self.context_blocks, slots = self._take(blocks_for(num_tokens))
        self.context_slots = slots[:num_tokens]
        columns = _columns(slots, CONTEXT_SAMPLE, np.full(num_tokens, CONTEXT), np.arange(num_tokens))
        self._write(slots, columns)

    @property
    def context_lists(self) -> BlockLists:
        """The context's blocks: full ones are seen whole, the last one may have room left."""
        whole = len(self.context_slots) // BLOCK_SIZE
        return BlockLists(self.context_blocks[:whole], self.context_blocks[whole:])

    def slots_needed(self, sample: SampleLayout, max_new_tokens: int) -> int:
        """Slots that a row takes: copies of the context, its tokens, its answer."""
        copies = len(sample.copy_offsets) * len(self.context_slots)
        return copies + sample.num_tokens + max_new_tokens

    def place(self, samples: Sequence[SampleLayout], max_new_tokens: int) -> list[Placement]:
        """Give rows their blocks, as many of `samples`, from the first on, as there is room for, and say
        in the tables who will be in each slot.

        The slots of tokens not yet generated get their order too: until then they are of a higher order
        than any query, hence masked, and decoding need not touch the tables.
        """
        placements, slots, columns = [], [], []
        for sample in samples:
            count = blocks_for(self.slots_needed(sample, max_new_tokens))
            if not self._free_rows or count > len(self._free_blocks):
                break
            row = self._free_rows.pop()
            segments, orders = _stream(sample, len(self.context_slots), max_new_tokens)
            blocks, own = self._take(count)
            placements.append(Placement(row, blocks, own[: len(orders)], len(orders) - max_new_tokens))
            slots.append(own)
            columns.append(_columns(own, row, segments, orders))
        if placements:
            self._write(np.concatenate(slots), np.concatenate(columns, axis=1))
        return placements

    def release(self, placements: Sequence[Placement]) -> None:
        """Take rows' blocks back. An empty pool hands them out in the order it did at first: the same rows
        then find the same places, and their masks in the cache."""
        self._free_rows.extend(p.row for p in placements)
        self._free_blocks = np.concatenate([self._free_blocks, *(p.blocks[::-1] for p in placements)])
        if len(self._free_rows) == self.max_rows:
            self._free_all()

    def _free_all(self) -> None:
        first = 1 + len(self.context_blocks)  # they are the first ones taken
        self._free_blocks = np.arange(self.num_blocks - 1, first - 1, -1)  # a stack
        self._free_rows = list(range(self.max_rows - 1, -1, -1))

    def _take(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        keep = len(self._free_blocks) - count
        blocks, self._free_blocks = self._free_blocks[keep:][::-1], self._free_blocks[:keep]
        return blocks, (blocks[:, None] * BLOCK_SIZE + np.arange(BLOCK_SIZE)).reshape(-1)

    def _write(self, slots: np.ndarray, columns: np.ndarray) -> None:
        index, values = to_device(slots, self.device), to_device(columns, self.device)
        for table, value in zip(
            (self.tables.sample, self.tables.segment, self.tables.order), values, strict=True
        ):
            table[index] = value


def _columns(slots: np.ndarray, sample: int, segments: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """int32 [3, slots]: sample, segment and order of each slot; those left over are free."""
    used = len(orders)
    columns = np.zeros((3, len(slots)), dtype=np.int32)
    columns[0, used:], columns[1, used:] = FREE_SAMPLE, NOBODY
    columns[0, :used], columns[1, :used], columns[2, :used] = sample, segments, orders
    return columns


def _stream(sample: SampleLayout, num_context: int, max_new_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Segments and orders of a row's slots in stream order: context copies, own tokens, the answer."""
    answer = np.arange(sample.answer_order, sample.answer_order + max_new_tokens, dtype=np.int32)
    orders = np.concatenate([sample.orders, answer])
    segments = np.concatenate([sample.segments, np.full(max_new_tokens, ANSWER, dtype=np.int32)])
    if not len(sample.copy_offsets):
        return segments, orders
    copies = (sample.copy_offsets[:, None] + np.arange(num_context)).reshape(-1)
    orders = np.concatenate([copies, orders])
    segments = np.concatenate([np.repeat(sample.copy_segments, num_context), segments])
    stream = np.argsort(orders)
    return segments[stream], orders[stream]
