"""What torch compiles no FlexAttention for on a CPU: the LSE, the log of the sum of the exponentiated scores.

Shapes: B batch rows, T query tokens a row, H query heads, K key/value heads, G = H / K, P cache slots.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from flexray.masks.visibility import MaskMod, ScoreMod


def log_sums_by_block(
    query: Tensor,
    keys: Tensor,
    block_mask: BlockMask,
    score_mod: ScoreMod,
    scale: float,
    are_wanted: Tensor,
) -> Tensor:
    """Log of the sum of each query's exponentiated scores, float32 [B, H, T]. Block by block in the order of
    each tile's list, as flex does: so a row's sum is of its own blocks, to which those of others add exact
    zeros.

    Args:
        query: [B, H, T, D]. keys: [K, P, D].
        are_wanted: bool [P], keys whose scores are not minus infinity; blocks without any are passed over.

    Scores of a block: [B, Q, K, G, t, block], Q tiles of t query tokens.
    """
    (B, H, T, D), K = query.shape, keys.shape[0]
    query_block, key_block = block_mask.BLOCK_SIZE
    t = min(T, query_block)
    assert T % t == 0
    tiles = query.float().reshape(B, K, H // K, T // t, t, D).permute(0, 3, 1, 2, 4, 5)
    batch = torch.arange(B)[:, None, None, None, None, None]
    token = torch.arange(T).reshape(T // t, 1, 1, t, 1)
    zero = torch.zeros((), dtype=torch.int64)
    sums = torch.full(tiles.shape[:-1], -math.inf)
    partial = block_mask.kv_num_blocks, block_mask.kv_indices, block_mask.mask_mod
    lists: list[tuple[Tensor, Tensor, MaskMod | None]] = [partial]
    if block_mask.full_kv_num_blocks is not None:
        assert block_mask.full_kv_indices is not None
        lists.append((block_mask.full_kv_num_blocks, block_mask.full_kv_indices, None))
    for counts, indices, mask_mod in lists:
        for n in range(int(counts.max())):
            first = indices[:, 0, :, n].long() * key_block
            slots = first[..., None] + torch.arange(key_block)  # [B, Q, block]
            if not are_wanted[slots].any():
                continue
            kv = slots[:, :, None, None, None]
            scores = torch.einsum("bqkgtd,kbqsd->bqkgts", tiles, keys[:, slots].float()) * scale
            scores = score_mod(scores, batch, zero, token, kv)
            seen = (n < counts[:, 0])[:, :, None, None, None, None]
            if mask_mod is not None:
                seen = seen & mask_mod(batch, zero, token, kv)
            sums = torch.logaddexp(sums, scores.masked_fill(~seen, -math.inf).logsumexp(-1))
    return sums.permute(0, 2, 3, 1, 4).reshape(B, H, T)


def with_lists_in_mask_mod(block_mask: BlockMask) -> BlockMask:
    """For flex that is not compiled: it asks the mask_mod of all keys, not of those in the partial blocks."""
    visible, (query_block, key_block) = block_mask.mask_mod, block_mask.BLOCK_SIZE
    partial = _listed(block_mask.kv_num_blocks, block_mask.kv_indices)
    assert block_mask.full_kv_num_blocks is not None
    assert block_mask.full_kv_indices is not None
    full = _listed(block_mask.full_kv_num_blocks, block_mask.full_kv_indices)

    def mask_mod(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        place = b, q // query_block, kv // key_block
        return full[place] | (partial[place] & visible(b, h, q, kv))

    found = copy.copy(block_mask)
    found.mask_mod = mask_mod
    return found


def _listed(counts: Tensor, indices: Tensor) -> Tensor:
    """Block lists of one head, [B, 1, Q] and [B, 1, Q, N], as bool [B, Q, N]."""
    listed = torch.arange(indices.shape[-1], device=counts.device) < counts[:, 0, :, None]
    found = torch.zeros_like(listed)
    batch, query, place = listed.nonzero(as_tuple=True)
    found[batch, query, indices[batch, 0, query, place].long()] = True
    return found
