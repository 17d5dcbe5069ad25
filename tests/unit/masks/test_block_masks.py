import numpy as np
import torch

from flexray.masks.block_masks import QUERY_TILE, BlockLists, BlockMaskCache, make_block_mask, tile_blocks


def causal(b, h, q, kv):
    return kv <= q


def make_mask(num_blocks=4, counts=((1,), (0,))):
    counts = torch.tensor(counts, dtype=torch.int32)[:, None, None]
    indices = torch.zeros((*counts.shape, num_blocks), dtype=torch.int32)
    tokens = counts.shape[-1] * QUERY_TILE
    return make_block_mask(counts, indices, query_tokens=tokens, block_size=64, mask_mod=causal)


def test_a_tile_looks_at_the_shared_blocks_and_at_those_of_its_rows_up_to_its_last_token():
    rows = np.repeat([0, 1, 2], [100, 100, 56])
    reach = np.repeat([1, 1, 2, 1], [100, 50, 50, 56])
    own = [np.array([3]), np.array([7, 8]), np.array([5])]
    counts, indices = tile_blocks(rows, reach, BlockLists(np.array([1]), np.array([2])), own)
    found = [[indices[kind, t, : counts[kind, t]].tolist() for t in range(4)] for kind in range(2)]
    assert found == [[[2, 3], [2, 3, 7], [2, 7, 8], [2, 7, 8, 5]], [[1], [1], [1], [1]]]


def test_tiles_of_the_last_row_alone_look_at_its_blocks_though_other_tiles_have_more():
    rows = np.repeat([0, 1, 2], [100, 100, 56 + QUERY_TILE])
    reach = np.repeat([1, 2, 1], [100, 100, 56 + QUERY_TILE])
    own = [np.array([3]), np.array([7, 8]), np.array([5])]
    counts, indices = tile_blocks(rows, reach, BlockLists(np.array([1]), np.array([2])), own)
    assert counts.tolist() == [[2, 4, 3, 4, 2], [1, 1, 1, 1, 1]]
    assert indices[0, 4, :2].tolist() == [2, 5]


def test_the_block_mask_covers_queries_and_pool_with_its_mask_function():
    mask = make_mask(num_blocks=8, counts=((2, 1), (1, 0)))
    assert mask.seq_lengths == (2 * QUERY_TILE, 8 * 64)
    assert mask.kv_num_blocks.flatten().tolist() == [2, 1]
    assert mask.full_kv_num_blocks.flatten().tolist() == [1, 0]
    assert mask.mask_mod is causal


def test_the_block_mask_tells_partial_blocks_from_full_ones():
    counts = torch.tensor([2, 1], dtype=torch.int32).view(2, 1, 1, 1)
    indices = torch.tensor([[3, 1, 0], [2, 0, 0]], dtype=torch.int32).view(2, 1, 1, 1, 3)
    mask = make_block_mask(counts, indices, query_tokens=QUERY_TILE, block_size=64, mask_mod=causal)
    assert mask.kv_indices[0, 0, 0, :2].tolist() == [3, 1]
    assert mask.full_kv_indices[0, 0, 0, :1].tolist() == [2]


def test_the_cache_hands_out_a_mask_again_under_its_whole_key_only():
    cache = BlockMaskCache(max_bytes=2**20)
    first = cache.get(("pool a", 256), make_mask)
    assert cache.get(("pool a", 256), make_mask) is first
    # the same shape for another pool is another mask
    assert cache.get(("pool b", 256), make_mask) is not first
    assert (cache.hits, cache.misses) == (1, 2)


def test_the_cache_drops_the_least_recently_used_masks_over_its_byte_limit():
    one = make_mask()
    num_bytes = one.kv_indices.numel() * 4 * 2
    cache = BlockMaskCache(max_bytes=2 * num_bytes)
    a = cache.get("a", make_mask)
    cache.get("b", make_mask)
    assert cache.get("a", make_mask) is a
    cache.get("c", make_mask)
    assert cache.num_bytes == 2 * num_bytes
    assert cache.get("a", make_mask) is a
    misses = cache.misses
    cache.get("b", make_mask)
    assert cache.misses == misses + 1


def test_of_masks_that_are_each_over_the_byte_limit_the_last_one_stays():
    cache = BlockMaskCache(max_bytes=1)
    cache.get("a", make_mask)
    b = cache.get("b", make_mask)
    assert cache.num_bytes == b.kv_indices.numel() * 4 * 2
    assert cache.get("b", make_mask) is b
    assert (cache.hits, cache.misses) == (1, 2)


def test_clearing_the_cache_forgets_masks_and_keeps_the_counters():
    cache = BlockMaskCache(max_bytes=2**20)
    cache.get("a", make_mask)
    cache.clear()
    assert cache.num_bytes == 0
    cache.get("a", make_mask)
    assert cache.misses == 2
