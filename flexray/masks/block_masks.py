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

QUERY_TILE = 64
"""Query tokens in a block of the packed prefill."""


@dataclass(frozen=True, slots=True)
class BlockLists:
    """Key blocks by block id: those a row sees all of, and those the mask_mod must be asked about."""

    full: np.ndarray  # int64
    partial: np.ndarray  # int64


NO_BLOCKS = BlockLists(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


def tile_blocks(
    rows_of_token: np.ndarray, reach: np.ndarray, shared: BlockLists, blocks_of_row: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The key blocks each query tile of a packed stream may look at.

    Args:
        rows_of_token: int [S], index into `blocks_of_row` for each token of the stream, ascending; S
            is a multiple of QUERY_TILE.
        reach: int [S], how many of its row's own blocks hold what stands before a token, or the token.
        shared: blocks that all rows may look at.
        blocks_of_row: for each row, the ids of its own blocks.

    Returns:
        Counts, int32 [2, tiles], and ids, int32 [2, tiles, W], of the partial and the full blocks; what
        stands behind a tile's count is not looked at.
    """
    assert len(rows_of_token) % QUERY_TILE == 0
    first, last = rows_of_token[::QUERY_TILE], rows_of_token[QUERY_TILE - 1 :: QUERY_TILE]
    ends = np.cumsum([len(blocks) for blocks in blocks_of_row])
    starts = np.concatenate([[0], ends[:-1]])
    flat = np.concatenate(blocks_of_row)
    own = starts[last] + reach[QUERY_TILE - 1 :: QUERY_TILE] - starts[first]
    partial, full = len(shared.partial), len(shared.full)
    counts = np.stack([partial + own, np.full(len(first), full)]).astype(np.int32)
    indices = np.zeros((2, len(first), max(partial + own.max(), full)), dtype=np.int32)
    indices[0, :, :partial], indices[1, :, :full] = shared.partial, shared.full
    reach = np.minimum(starts[first][:, None] + np.arange(own.max()), len(flat) - 1)
    indices[0, :, partial : partial + own.max()] = flat[reach]
    return counts, indices


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

    A mask is a view of tensors that each pass refreshes in place, so the key is what they are made for:
    phase, bucket, pool, block size and device. (Masks of a batch's values would need them in their key.)
    """

    max_bytes: int
    hits: int = 0
    misses: int = 0
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
        return mask

    def clear(self) -> None:
        """Forget all masks (they refer to tensors of a pool that is gone); counters stay."""
        self._masks.clear()
        self.num_bytes = 0
