"""What a prefill pass reads: the tokens of many requests in one 1-D stream, without padding between them.

The stream may be cut into passes anywhere: a token sees earlier ones through the KV cache, so a long prompt
or context simply takes several passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from flexray.config import Backend
from flexray.engine.kv_cache import BLOCK_SIZE, PADDING_ID, BlockTable, KVCache, layout_blocks, to_device
from flexray.engine.scheduler_config import SchedulerConfig
from flexray.masks.block_masks import (
    NO_BLOCKS,
    QUERY_TILE,
    BlockLists,
    BlockMaskCache,
    make_block_mask,
    tile_blocks,
)
from flexray.masks.layout import CONTEXT_ID, SEGMENT_BITS, PackedPrompt
from flexray.masks.visibility import QueryTables, make_biases, make_visible
from flexray.models.attention import AttentionMetadata, make_dense_mask

# The columns of a stream, int64: what a pass has to know of each token.
ID, POSITION, VISIBLE, OWN, CAUSAL_INDEX, SLOT = range(6)


@dataclass(frozen=True, slots=True)
class PackedTokens:
    """A request's own tokens, ready to be put into a stream. L tokens."""

    columns: np.ndarray  # int64 [6, L]
    biases: np.ndarray  # float32 [2, L]
    logits_indices: np.ndarray  # int64 [B], tokens that the first tokens of answers are chosen from
    blocks: np.ndarray  # int64, ids of its own key blocks


@dataclass(frozen=True, slots=True)
class TokenStream:
    """S tokens to prefill, on the host, one request behind the other."""

    columns: np.ndarray  # int64 [6, S]
    biases: np.ndarray  # float32 [2, S]
    requests: np.ndarray  # int64 [S], index into `blocks`, ascending
    logits_indices: np.ndarray  # int64 [B], ascending
    blocks: Sequence[np.ndarray]  # each request's own key blocks
    shared: BlockLists  # key blocks that all requests may look at

    def __len__(self) -> int:
        return int(self.columns.shape[1])

    def passes(self, sizes: SchedulerConfig) -> Iterator[TokenStream]:
        """Cut into streams that fill the buckets, the last one as well as it can."""
        start = 0
        while start < len(self):
            stop = start + sizes.prefill_pass(len(self) - start)
            requests = self.requests[start:stop]
            ends = self.logits_indices
            yield TokenStream(
                self.columns[:, start:stop],
                self.biases[:, start:stop],
                requests - requests[0],
                ends[(start <= ends) & (ends < stop)] - start,
                self.blocks[requests[0] : requests[-1] + 1],
                self.shared,
            )
            start = stop


def pack_tokens(prompt: PackedPrompt, block_table: BlockTable, max_new_tokens: int) -> PackedTokens:
    """What the passes have to know of a request that has its blocks."""
    layout = prompt.layout
    first_id = block_table.request << SEGMENT_BITS
    columns = np.empty((6, prompt.num_tokens), dtype=np.int64)
    columns[ID] = prompt.token_ids
    columns[POSITION] = layout.positions
    columns[VISIBLE] = first_id + layout.visible_segments
    columns[OWN] = first_id + layout.slot_segments[layout.slots]
    columns[CAUSAL_INDEX] = layout.first_causal_index + layout.slots
    columns[SLOT] = block_table.slots[layout.slots]
    blocks = block_table.blocks[layout_blocks(layout, max_new_tokens).prompt]
    return PackedTokens(columns, layout.biases, layout.logits_indices, blocks)


def context_stream(token_ids: Sequence[int], kv_cache: KVCache) -> TokenStream:
    """The context that all requests share, at positions 0..C-1."""
    C = len(token_ids)
    index = np.arange(C)
    ids = np.full(C, CONTEXT_ID)
    columns = np.stack([np.asarray(token_ids), index, ids, ids, index, kv_cache.context_slots])
    return TokenStream(
        columns,
        np.zeros((2, C), dtype=np.float32),
        np.zeros(C, dtype=np.int64),
        np.array([C - 1]),
        [kv_cache.context_blocks],
        NO_BLOCKS,
    )


def requests_stream(requests: Sequence[PackedTokens], shared: BlockLists) -> TokenStream:
    """Many requests' tokens, one request behind the other."""
    lengths = [tokens.columns.shape[1] for tokens in requests]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return TokenStream(
        np.concatenate([tokens.columns for tokens in requests], axis=1),
        np.concatenate([tokens.biases for tokens in requests], axis=1),
        np.repeat(np.arange(len(requests)), lengths),
        np.concatenate([t.logits_indices + start for t, start in zip(requests, starts, strict=True)]),
        [tokens.blocks for tokens in requests],
        shared,
    )


class PrefillInputs:
    """One size of pass: the static tensors it reads, refreshed in place, and their mask.

    Args:
        bucket: tokens that a stream is padded to, a multiple of QUERY_TILE.
        biased: whether any request of the run has a bias (it decides on the graph, not the batch).
    """

    def __init__(self, bucket: int, kv_cache: KVCache, *, biased: bool):
        assert bucket % QUERY_TILE == 0
        self.bucket, self.kv_cache, self.biased = bucket, kv_cache, biased
        device, tiles = kv_cache.device, bucket // QUERY_TILE
        self.tables = QueryTables.zeros((1, bucket), device)
        self.block_counts = torch.zeros((2, 1, 1, tiles), dtype=torch.int32, device=device)
        indices = (2, 1, 1, tiles, kv_cache.num_blocks)
        self.block_indices = torch.zeros(indices, dtype=torch.int32, device=device)
        self.mask_mod = make_visible(self.tables, kv_cache.tables)
        self.score_mod = make_biases(self.tables, kv_cache.tables) if biased else None
        self.padding = np.zeros((6, bucket), dtype=np.int64)
        self.padding[[VISIBLE, OWN]] = PADDING_ID
        self.padding[SLOT] = np.arange(bucket) % BLOCK_SIZE  # of the scratch block

    def load(
        self, stream: TokenStream, backend: Backend, masks: BlockMaskCache, calls: Tensor
    ) -> tuple[Tensor, Tensor, AttentionMetadata]:
        """Token ids and positions, int64 [bucket], and how to attend."""
        S, device = len(stream), self.kv_cache.device
        assert self.bucket >= S
        columns = self.padding.copy()
        columns[:, :S] = stream.columns
        ids, positions, visible, own, causal_index, slots = to_device(columns, device)
        biases = None
        if self.biased:
            biases = to_device(np.pad(stream.biases, ((0, 0), (0, self.bucket - S))), device)
        self.tables.refresh(visible, own, causal_index, biases)
        if backend != "flex":
            blocks = np.concatenate([[0], stream.shared.full, stream.shared.partial, *stream.blocks])
            dense = make_dense_mask(
                to_device(blocks[None], device),
                BLOCK_SIZE,
                self.tables,
                self.kv_cache.tables,
                biased=self.biased,
            )
            return ids, positions, AttentionMetadata(backend, slots, calls, dense=dense)
        requests = np.pad(stream.requests, (0, self.bucket - S), constant_values=len(stream.blocks))
        own_blocks = [*stream.blocks, np.zeros(1, dtype=np.int64)]
        counts, indices = tile_blocks(requests, stream.shared, own_blocks)
        self.block_counts.copy_(to_device(counts, device)[:, None, None])
        self.block_indices[..., : indices.shape[-1]] = to_device(indices, device)[:, None, None]
        return ids, positions, AttentionMetadata(backend, slots, calls, self._mask(masks), self.score_mod)

    def _mask(self, masks: BlockMaskCache) -> BlockMask:
        return masks.get(
            ("prefill", self.bucket, self.kv_cache.num_slots, BLOCK_SIZE, str(self.kv_cache.device)),
            lambda: make_block_mask(
                self.block_counts,
                self.block_indices,
                query_tokens=self.bucket,
                block_size=BLOCK_SIZE,
                mask_mod=self.mask_mod,
            ),
        )
