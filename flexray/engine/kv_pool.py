"""The paged KV pool: fixed-size blocks of slots that rows borrow for as long as they are answered.

    slots   [ scratch block | context blocks | row blocks ................ ]   P in all, one K/V slot a token

Paging as in vLLM (Kwon et al. 2023, arXiv:2309.06180); the block lists become the BlockMask's indices,
so FlexAttention reads the blocks where they are and the context is stored once for all rows.
Block 0 is scratch: padding writes there and sees only itself, hence is always finite and seen by nobody.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from flexray.engine.transfer import to_device
from flexray.masks.block_mask import BlockLists
from flexray.masks.layout import CONTEXT_CODE, FIRST_BRANCH, MAX_ROWS, PART_BITS, Sample, Shape
from flexray.masks.visibility import KeyTables

BLOCK_SIZE = 32
"""Slots in a block."""

PADDING_CODE = (MAX_ROWS - 1) << PART_BITS | 1
FREE_CODE = (MAX_ROWS - 2) << PART_BITS | 1


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one row lives in the pool."""

    row: int
    blocks: np.ndarray  # int64 [num blocks], in the order of the row's stream
    slots: np.ndarray  # int64 [num_slots], where in the pool each of the row's slots is


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
        assert max_rows <= MAX_ROWS - 2
        free = torch.full((num_slots,), FREE_CODE, dtype=torch.int32, device=device)
        self.tables = KeyTables(free, torch.zeros_like(free))
        self.tables.code[:BLOCK_SIZE] = PADDING_CODE
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
        self._write(slots, _columns(len(slots), np.full(num_tokens, CONTEXT_CODE), first_order=0))

    @property
    def context_lists(self) -> BlockLists:
        """The context's blocks: full ones are seen whole, the last one may have room left."""
        whole = len(self.context_slots) // BLOCK_SIZE
        return BlockLists(self.context_blocks[:whole], self.context_blocks[whole:])

    def place(self, samples: Sequence[Sample]) -> list[Placement]:
        """Give rows their blocks, as many of `samples`, from the first on, as there is room for, and say
        in the tables who will be in each slot.

        The slots of tokens not yet generated get their order too: until then they are of a higher order
        than any query, hence masked, and decoding need not touch the tables.
        """
        placements, slots, columns = [], [], []
        for sample in samples:
            shape = sample.shape
            count = blocks_for(shape.num_slots)
            if not self._free_rows or count > len(self._free_blocks):
                break
            row = self._free_rows.pop()
            blocks, own = self._take(count)
            placements.append(Placement(row, blocks, own[: shape.num_slots]))
            slots.append(own)
            codes = (row << PART_BITS) + shape.slot_parts
            columns.append(_columns(len(own), codes, shape.first_order))
        if placements:
            self._write(np.concatenate(slots), np.concatenate(columns, axis=1))
        return placements

    def release(self, placements: Sequence[Placement]) -> None:
        """Take rows' blocks back. An empty pool hands them out in order again: a row's blocks then lie
        side by side."""
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
        index, (code, order) = to_device(slots, self.device), to_device(columns, self.device)
        self.tables.code[index] = code
        self.tables.order[index] = order


def _columns(num_slots: int, codes: np.ndarray, first_order: int) -> np.ndarray:
    """int32 [2, num_slots]: code and order of each slot; those left over are free."""
    columns = np.zeros((2, num_slots), dtype=np.int32)
    columns[0, len(codes) :] = FREE_CODE
    columns[0, : len(codes)] = codes
    columns[1, : len(codes)] = np.arange(first_order, first_order + len(codes))
    return columns


@dataclass(frozen=True, slots=True)
class RowBlocks:
    """A row's blocks by number, counted from its first one: what its passes may look at."""

    prompt: np.ndarray  # int64, that hold its copies of the context and its own tokens
    branches: tuple[BlockLists, ...]
    """For each branch: full ones, of which it sees every slot, and partial ones; of those the last
    `answers` are the ones that its answer will fill, from the block of the first generated token on."""
    answers: tuple[int, ...]


@functools.lru_cache(maxsize=4096)
def row_blocks(shape: Shape, max_new_tokens: int) -> RowBlocks:
    """Work out once, for all rows of a shape, which blocks are looked at."""
    parts = np.pad(shape.slot_parts, (0, -shape.num_slots % BLOCK_SIZE)).reshape(-1, BLOCK_SIZE)
    filled = np.ones(shape.num_slots, dtype=bool)
    for first in shape.answer_slots:
        filled[first : first + max_new_tokens] = False
    prompt = np.pad(filled, (0, parts.size - shape.num_slots)).reshape(parts.shape)
    branches, answers = [], []
    for number, (view, first) in enumerate(zip(shape.views, shape.answer_slots, strict=True)):
        seen = (
            (parts < FIRST_BRANCH)
            if view.paraphrase is None
            else parts == shape.paraphrase_parts[view.paraphrase]
        )
        seen = (seen | (parts == FIRST_BRANCH + number)) & prompt
        full = np.flatnonzero(seen.all(axis=1))
        answer = np.arange(first // BLOCK_SIZE, (first + max_new_tokens - 1) // BLOCK_SIZE + 1)
        others = np.setdiff1d(np.flatnonzero(seen.any(axis=1)), np.concatenate([full, answer]))
        branches.append(BlockLists(full, np.concatenate([others, answer])))
        answers.append(len(answer))
    return RowBlocks(np.flatnonzero(prompt.any(axis=1)), tuple(branches), tuple(answers))
