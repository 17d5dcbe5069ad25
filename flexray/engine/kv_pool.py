"""The paged KV pool: fixed-size blocks of slots that rows borrow for as long as they are answered.

    slots   [ scratch block | context blocks | row blocks ................ ]   P in all, one K/V slot a token

Paging as in vLLM (Kwon et al. 2023, arXiv:2309.06180); the block lists become the BlockMask's indices,
so FlexAttention reads the blocks where they are and the context is stored once for all rows.
Block 0 is scratch: padding writes there and sees only itself, hence is always finite and seen by nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

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
    blocks: np.ndarray  # int64 [num blocks]
    slots: np.ndarray  # int64 [own tokens + max_new_tokens], in stream order, context copies first in each segment


def blocks_for(num_tokens: int) -> int:
    """Blocks that hold `num_tokens` slots."""
    return -(-num_tokens // BLOCK_SIZE)


class KVPool:
    """Keys and values of all layers, [num_layers] x [1, K, P, D] each, and who owns each slot.

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
        shape = (1, num_kv_heads, num_slots, head_dim)
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
        self._free_blocks = list(range(self.num_blocks - 1, 0, -1))
        self._free_rows = list(range(max_rows - 1, -1, -1))

    @property
    def num_blocks(self) -> int:
        """All blocks, scratch and context included."""
        return self.num_slots // BLOCK_SIZE

    @property
    def free_blocks(self) -> int:
        """Blocks that no row has."""
        return len(self._free_blocks)

    @property
    def free_rows(self) -> int:
        """Rows that may still be placed."""
        return len(self._free_rows)

    def place_context(self, num_tokens: int) -> None:
        """Reserve the slots of the context that all rows share. Called once."""
        assert len(self.context_blocks) == 0, "the context has a place already"
        self.context_blocks, slots = self._take(blocks_for(num_tokens))
        self.context_slots = slots[:num_tokens]
        segments = np.full(num_tokens, CONTEXT)
        self._write(slots, CONTEXT_SAMPLE, segments, np.arange(num_tokens))

    def slots_needed(self, sample: SampleLayout, max_new_tokens: int) -> int:
        """Slots that a row takes: copies of the context, its tokens, its answer."""
        copies = len(sample.copy_offsets) * len(self.context_slots)
        return copies + sample.num_tokens + max_new_tokens

    def fits(self, sample: SampleLayout, max_new_tokens: int) -> bool:
        """Whether the row can be placed now."""
        return self.free_rows > 0 and blocks_for(self.slots_needed(sample, max_new_tokens)) <= self.free_blocks

    def place(self, sample: SampleLayout, max_new_tokens: int) -> Placement:
        """Give a row its blocks, and say in the tables who will be in each slot.

        The slots of tokens not yet generated get their order too: until then they are of a higher order
        than any query, hence masked, and decoding need not touch the tables.
        """
        assert self.fits(sample, max_new_tokens)
        row = self._free_rows.pop()
        segments, orders = _stream(sample, len(self.context_slots), max_new_tokens)
        blocks, slots = self._take(blocks_for(len(orders)))
        self._write(slots, row, segments, orders)
        return Placement(row, blocks, slots[: len(orders)])

    def release(self, placement: Placement) -> None:
        """Take a row's blocks back."""
        self._free_rows.append(placement.row)
        self._free_blocks.extend(placement.blocks[::-1].tolist())

    def _take(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        blocks = np.asarray([self._free_blocks.pop() for _ in range(count)], dtype=np.int64)
        blocks.sort()
        return blocks, (blocks[:, None] * BLOCK_SIZE + np.arange(BLOCK_SIZE)).reshape(-1)

    def _write(self, slots: np.ndarray, sample: int, segments: np.ndarray, orders: np.ndarray) -> None:
        used = len(orders)
        columns = np.full((3, len(slots)), FREE_SAMPLE, dtype=np.int32)
        columns[1], columns[2] = NOBODY, 0
        columns[0, :used], columns[1, :used], columns[2, :used] = sample, segments, orders
        index = torch.from_numpy(slots).to(self.device)
        values = torch.from_numpy(columns).to(self.device)
        for table, value in zip((self.tables.sample, self.tables.segment, self.tables.order), values, strict=True):
            table[index] = value


def _stream(sample: SampleLayout, num_context: int, max_new_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Segments and orders of a row's slots in stream order: context copies, own tokens, the answer."""
    copies = (sample.copy_offsets[:, None] + np.arange(num_context)).reshape(-1)
    copy_segments = np.repeat(sample.copy_segments, num_context)
    answer = np.arange(sample.answer_order, sample.answer_order + max_new_tokens)
    orders = np.concatenate([copies, sample.orders, answer])
    segments = np.concatenate([copy_segments, sample.segments, np.full(max_new_tokens, ANSWER)])
    stream = np.argsort(orders, kind="stable")
    return segments[stream], orders[stream]
