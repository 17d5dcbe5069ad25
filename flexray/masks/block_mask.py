"""BlockMasks built from lists of blocks, and a cache of them.

`create_block_mask` would evaluate the mask at every (query, key) pair, S x P bools. Which blocks a
query tile can see is known from where its rows' blocks are, so the BlockMask is written down.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from flexray.masks.visibility import MaskMod

QUERY_TILE = 128
"""Query tokens in a block of the packed prefill."""


@dataclass(frozen=True, slots=True)
class BlockLists:
    """Key blocks by block id: those a row sees all of, and those the mask_mod must be asked about."""

    full: np.ndarray  # int64
    partial: np.ndarray  # int64


def tile_blocks(
    rows_of_token: np.ndarray, shared: BlockLists, blocks_of_row: Sequence[np.ndarray]
) -> list[BlockLists]:
    """The key blocks each query tile of a packed stream may look at.

    Args:
        rows_of_token: int [S], index into `blocks_of_row` for each token of the stream, ascending; S
            is a multiple of QUERY_TILE.
        shared: blocks that all rows may look at.
        blocks_of_row: for each row, the ids of its own blocks.
    """
    assert len(rows_of_token) % QUERY_TILE == 0
    first, last = rows_of_token[::QUERY_TILE], rows_of_token[QUERY_TILE - 1 :: QUERY_TILE]
    return [
        BlockLists(shared.full, np.concatenate([shared.partial, *blocks_of_row[a : b + 1]]))
        for a, b in zip(first, last, strict=True)
    ]


def packed_block_mask(
    tiles: Sequence[BlockLists],
    *,
    num_blocks: int,
    block_size: int,
    mask_mod: MaskMod,
    to_device: Callable[[np.ndarray], Tensor],
) -> BlockMask:
    """BlockMask [1, 1, S, P] of a packed stream from the blocks of each query tile.

    Args:
        num_blocks: P / block_size.
        to_device: copies an array to the device of the mask's tables.
    """
    counts = np.zeros((2, 1, 1, len(tiles)), dtype=np.int32)
    indices = np.zeros((2, 1, 1, len(tiles), num_blocks), dtype=np.int32)
    for i, tile in enumerate(tiles):
        for kind, blocks in enumerate((tile.partial, tile.full)):
            counts[kind, 0, 0, i] = len(blocks)
            indices[kind, 0, 0, i, : len(blocks)] = blocks
    return make_block_mask(
        to_device(counts),
        to_device(indices),
        query_tokens=len(tiles) * QUERY_TILE,
        block_size=block_size,
        mask_mod=mask_mod,
    )


def make_block_mask(
    counts: Tensor, indices: Tensor, *, query_tokens: int, block_size: int, mask_mod: MaskMod
) -> BlockMask:
    """BlockMask from block counts [2, B, 1, Q] and block indices [2, B, 1, Q, P / block_size], partial
    blocks first, full ones second."""
    return BlockMask.from_kv_blocks(
        counts[0],
        indices[0],
        counts[1],
        indices[1],
        BLOCK_SIZE=(QUERY_TILE, block_size),
        mask_mod=mask_mod,
        seq_lengths=(query_tokens, indices.shape[-1] * block_size),
        compute_q_blocks=False,
    )


def _num_bytes(mask: BlockMask) -> int:
    return sum(t.numel() * t.element_size() for t in (mask.kv_indices, mask.full_kv_indices) if t is not None)


@dataclass(slots=True)
class BlockMaskCache:
    """Least-recently-used cache of BlockMasks with a byte limit.

    The key must determine the mask: the layout's digest, bucket, block size and device. (A key of the
    shape alone would hand out another batch's mask.)
    """

    max_bytes: int
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    num_bytes: int = 0
    _masks: OrderedDict[Hashable, BlockMask] = field(default_factory=OrderedDict)

    def get(self, key: Hashable, build: Callable[[], BlockMask]) -> BlockMask:
        """The mask of `key`, built on a miss."""
        if key in self._masks:
            self.hits += 1
            self._masks.move_to_end(key)
            return self._masks[key]
        self.misses += 1
        mask = self._masks[key] = build()
        self.num_bytes += _num_bytes(mask)
        while self.num_bytes > self.max_bytes and len(self._masks) > 1:
            _, old = self._masks.popitem(last=False)
            self.num_bytes -= _num_bytes(old)
            self.evictions += 1
        return mask

    def clear(self) -> None:
        """Forget all masks (they refer to tensors of a pool that is gone); counters stay."""
        self._masks.clear()
        self.num_bytes = 0
