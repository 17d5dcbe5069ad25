"""FlexAttention over the KV cache, and over a shared context apart from the rest.

Shapes: B batch rows, T query tokens a row, H query heads, K key/value heads, G = H / K, P cache slots.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from flexray.masks.visibility import ScoreMod, is_of_paraphrase
from flexray.models.flex_on_cpu import log_sums_by_block, with_lists_in_mask_mod

if TYPE_CHECKING:
    from flexray.models.attention import AttentionMetadata

T = TypeVar("T")
HAS_CUDNN = torch.backends.cudnn.is_available()
LEAST_TILE = 16
"""Query tokens of a product on a GPU, at least."""
LEAST_LOG = torch.finfo(torch.float32).min
"""In place of minus infinity, of which two have no difference."""


def attend_by_flex(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, metadata: AttentionMetadata
) -> Tensor:
    """See `flexray.models.attention.attend`."""
    B, H, T, D = query.shape
    K = keys.shape[0]
    assert metadata.block_mask is not None
    folded = query
    if metadata.fold_heads:
        # a program of the kernel has query tokens of one head: so it reads the keys once for all G
        folded = query.reshape(B, K, (H // K) * T, D)
    splits = metadata.key_splits
    if splits > 1:
        folded = folded[:, None].expand(-1, splits, -1, -1, -1).flatten(0, 1)
    block_mask, merged = metadata.block_mask, metadata.context is not None or splits > 1
    # within a compiled layer, flex is part of its graph
    flex = _counted_flex if torch.compiler.is_compiling() else compiled_flex()
    if merged and not query.is_cuda:
        # torch compiles no flex for CPUs that tells the LSE
        flex, block_mask = _counted_flex, with_lists_in_mask_mod(block_mask)
    score_mod = metadata.score_mod
    if (adaptive := metadata.adaptive) is not None:
        of_paraphrases, listed = adaptive.of_paraphrases(score_mod), metadata.block_mask
        if query.is_cuda:
            _, log_sums = _flex(folded, keys[None], values[None], listed, of_paraphrases, scale, True)
            assert log_sums is not None
        else:
            are_wanted = is_of_paraphrase(adaptive.keys.first)
            log_sums = log_sums_by_block(folded, keys, listed, of_paraphrases, scale, are_wanted)
        score_mod = adaptive.scaled(score_mod, log_sums)
    out, lse = flex(folded, keys[None], values[None], block_mask, score_mod, scale, metadata.calls, merged)
    if splits > 1:
        assert lse is not None
        out, lse = merge_splits(out, lse, splits)
    out = out.reshape(B, H, T, D)
    if metadata.context is None:
        return out
    assert lse is not None
    start, stop = metadata.context
    to_context, context_lse = attend_to_all(query, keys[:, start:stop], values[:, start:stop], scale)
    if metadata.context_bias is not None:
        context_lse = context_lse + metadata.context_bias[:, None]
    return merge(out, lse.reshape(B, H, T), to_context, context_lse)


def _counted_flex(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    block_mask: BlockMask,
    score_mod: ScoreMod | None,
    scale: float,
    calls: Tensor,
    with_lse: bool,
) -> tuple[Tensor, Tensor | None]:
    calls.add_(1)  # in the compiled graph: counts only if this very code ran
    return _flex(query, keys, values, block_mask, score_mod, scale, with_lse)


def _flex(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    block_mask: BlockMask,
    score_mod: ScoreMod | None,
    scale: float,
    with_lse: bool,
) -> tuple[Tensor, Tensor | None]:
    found: Any = flex_attention(
        query,
        keys,
        values,
        score_mod=score_mod,
        block_mask=block_mask,
        scale=scale,
        enable_gqa=query.shape[1] != keys.shape[1],
        kernel_options=_kernel_options(query, block_mask) if query.is_cuda else None,
        return_aux=AuxRequest(lse=True) if with_lse else None,
    )
    return (found[0], found[1].lse) if with_lse else (found, None)


def attend_to_all(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Attention without a mask, by a kernel that is made for that.

    Args:
        query: [B, H, T, D]. keys, values: [K, C, D], the same for all batch rows.

    Returns:
        Output [B, H, T, D] and log of the sum of the exponentiated scores, float32 [B, H, T].
    """
    B, H, T, D = query.shape
    one_row = query.transpose(1, 2).reshape(1, B * T, H, D).transpose(1, 2)
    keys, values, aten = keys[None], values[None], torch.ops.aten
    found: Any
    if not query.is_cuda:
        found = aten._scaled_dot_product_flash_attention_for_cpu(one_row, keys, values, scale=scale)
    elif HAS_CUDNN and query.dtype.itemsize == 2 and D <= 128:
        found = aten._scaled_dot_product_cudnn_attention(one_row, keys, values, None, True, scale=scale)
    else:
        grouped = keys.shape[1] != H
        out, aux = flex_attention(
            one_row, keys, values, scale=scale, enable_gqa=grouped, return_aux=AuxRequest(lse=True)
        )
        found = out, aux.lse
    out, lse = found[0].transpose(1, 2).reshape(B, T, H, D), found[1].reshape(H, B, T)
    return out.transpose(1, 2), lse.transpose(0, 1)


def merge(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> Tensor:
    """Attention to two disjoint sets of keys from the attention to each (Juravsky et al. 2024,
    arXiv:2402.05099): of the context and the rest, since the context is read once for all queries and not
    once for each sequence."""
    share = torch.sigmoid(other_lse - lse)[..., None]
    return torch.lerp(out.float(), other.float(), share).to(out.dtype)


def merge_splits(out: Tensor, lse: Tensor, splits: int) -> tuple[Tensor, Tensor]:
    """Attention of each batch row from that to disjoint parts of its keys (Dao et al. 2023, Flash-Decoding).

    Args:
        out: [B * splits, K, G, D], the parts of a row one after the other; 0 where a part has no keys.
        lse: float32 [B * splits, K, G]; minus infinity where a part has no keys.
    """
    parts, sums = out.unflatten(0, (-1, splits)), lse.unflatten(0, (-1, splits))
    whole = sums.logsumexp(1)
    shares = (sums - whole.clamp_min(LEAST_LOG)[:, None]).exp()[..., None]
    return (parts * shares).sum(1).to(out.dtype), whole


def _kernel_options(query: Tensor, block_mask: BlockMask) -> Any:
    """Tiles for the GPU. They must divide the mask's blocks. Few query tokens: decoding. The figures are the
    fastest of those tried on an H100 (docs/benchmarks.md); torch's own are for long rows."""
    query_block, key_block = block_mask.BLOCK_SIZE
    decoding = query.shape[2] < query_block
    # not torch's kernel for few query tokens: it splits the whole cache, of which a row's blocks may be
    # anywhere (see `key_splits`), and takes a second kernel to put the parts together
    options = {"FORCE_USE_FLEX_ATTENTION": True, "BLOCK_N": key_block}
    options |= {"BLOCK_M": LEAST_TILE if decoding else query_block}
    if query.dtype.itemsize == 2:
        options |= {"num_stages": 3, "num_warps": 2 if decoding else 4}
    return options


@functools.cache
def compiled_flex() -> Callable[..., tuple[Tensor, Tensor | None]]:
    """FlexAttention, compiled; one graph for each shape and each presence of a score_mod.

    Past its recompile limit dynamo would run flex_attention uncompiled, a dense O(S x P) path, with one
    warning. Here that is an error.
    """
    return static_compile(_counted_flex)


def static_compile(function: Callable[..., T], *, dynamic: bool = False) -> Callable[..., T]:
    """torch.compile with a graph for each shape, none of them ever given up silently.

    Args:
        dynamic: with one for all shapes.
    """
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 256)
    return torch.compile(function, dynamic=dynamic, fullgraph=True)
