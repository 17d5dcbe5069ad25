import numpy as np
import torch

from flexray.masks.block_mask import QUERY_TILE, BlockLists, BlockMaskCache, packed_block_mask, tile_blocks

EMPTY = np.zeros(0, dtype=np.int64)


def causal(b, h, q, kv):
    return kv <= q


def make_mask(num_blocks=4):
    tiles = [BlockLists(EMPTY, np.array([0]))]
    return packed_block_mask(
        tiles, num_blocks=num_blocks, block_size=64, mask_mod=causal, to_device=torch.from_numpy
    )


def test_a_tile_looks_at_the_blocks_of_its_rows_and_the_shared_ones():
    rows = np.repeat([0, 1, 2], [100, 100, 56])
    tiles = tile_blocks(
        rows, BlockLists(np.array([1]), np.array([2])), [np.array([3]), np.array([7, 8]), np.array([5])]
    )
    assert [t.full.tolist() for t in tiles] == [[1], [1]]
    assert [t.partial.tolist() for t in tiles] == [[2, 3, 7, 8], [2, 7, 8, 5]]


def test_the_block_mask_lists_the_blocks_of_each_tile():
    tiles = [BlockLists(np.array([1]), np.array([2, 3])), BlockLists(EMPTY, np.array([0]))]
    mask = packed_block_mask(tiles, num_blocks=8, block_size=64, mask_mod=causal, to_device=torch.from_numpy)
    assert mask.seq_lengths == (2 * QUERY_TILE, 8 * 64)
    assert mask.kv_num_blocks.flatten().tolist() == [2, 1]
    assert mask.kv_indices[0, 0, 0, :2].tolist() == [2, 3]
    assert mask.full_kv_num_blocks.flatten().tolist() == [1, 0]
    assert mask.full_kv_indices[0, 0, 0, 0].item() == 1
    assert mask.mask_mod is causal


def test_the_cache_hands_out_a_mask_again_under_its_whole_key_only():
    cache = BlockMaskCache(max_bytes=2**20)
    first = cache.get(("layout a", 256), make_mask)
    assert cache.get(("layout a", 256), make_mask) is first
    # the same shape with another layout is another mask
    assert cache.get(("layout b", 256), make_mask) is not first
    assert (cache.hits, cache.misses) == (1, 2)


def test_the_cache_drops_the_least_recently_used_masks_over_its_byte_limit():
    one = make_mask()
    num_bytes = one.kv_indices.numel() * 4 * 2
    cache = BlockMaskCache(max_bytes=2 * num_bytes)
    a = cache.get("a", make_mask)
    cache.get("b", make_mask)
    assert cache.get("a", make_mask) is a
    cache.get("c", make_mask)
    assert cache.evictions == 1
    assert cache.num_bytes == 2 * num_bytes
    assert cache.get("a", make_mask) is a
    misses = cache.misses
    cache.get("b", make_mask)
    assert cache.misses == misses + 1


def test_clearing_the_cache_forgets_masks_and_keeps_the_counters():
    cache = BlockMaskCache(max_bytes=2**20)
    cache.get("a", make_mask)
    cache.clear()
    assert cache.num_bytes == 0
    cache.get("a", make_mask)
    assert cache.misses == 2
