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
from flexray.engine.block_lists import members_of, prompt_blocks
from flexray.engine.cuda_graph import CudaGraph
from flexray.engine.kv_cache import (
    BLOCK_SIZE,
    PADDING_ID,
    BlockTable,
    KVCache,
    all_slots,
    first_ids,
)
from flexray.engine.scheduler_config import SchedulerConfig
from flexray.engine.transfers import to_device
from flexray.masks import runs as run_columns
from flexray.masks.adaptive import AdaptiveTables
from flexray.masks.block_masks import (
    NO_BLOCKS,
    QUERY_TILE,
    BlockLists,
    BlockMaskCache,
    make_block_mask,
    tile_blocks,
)
from flexray.masks.layout import ALL_MEMBERS, FIRST_ANSWER, NUM_BIASES, PackedPrompt
from flexray.masks.runs import expand, tabulate
from flexray.masks.shared_context import SharedContext
from flexray.masks.visibility import Bias, QueryTables, make_score_mod, make_visible
from flexray.models.attention import AttentionMetadata, Slots, make_dense_mask
from flexray.models.llama import HiddenStates

# The columns of a stream, int64: what a pass has to know of each token.
ID, POSITION, VISIBLE_FIRST, VISIBLE_LAST, OWN, CAUSAL_INDEX, SLOT = range(7)


@dataclass(frozen=True, slots=True)
class TokenStream:
    """S tokens to prefill, on the host, one request behind the other."""

    columns: np.ndarray  # int64 [7, S]
    biases: np.ndarray  # float32 [NUM_BIASES, S]
    members: np.ndarray | None  # int64 [S], as QueryTables has them; None: all bits
    requests: np.ndarray  # int64 [S], index into `blocks`, ascending
    reach: np.ndarray  # int64 [S], how many of its request's key blocks a token may look at
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
                None if self.members is None else self.members[start:stop],
                requests - requests[0],
                self.reach[start:stop],
                ends[(start <= ends) & (ends < stop)] - start,
                self.blocks[requests[0] : requests[-1] + 1],
                self.shared,
            )
            start = stop


def context_stream(context: SharedContext, kv_cache: KVCache) -> TokenStream:
    """The context that requests share, in the cache's slots for it."""
    C = len(context)
    own, sees, position = context.tokens
    columns = np.stack(
        [np.asarray(context.token_ids), position, own, sees, own, np.arange(C), kv_cache.context_slots]
    )
    return TokenStream(
        columns,
        np.zeros((NUM_BIASES, C), dtype=np.float32),
        None,
        np.zeros(C, dtype=np.int64),
        kv_cache.context_slots // BLOCK_SIZE,  # its blocks are the first ones behind the scratch block
        np.array([C - 1]),
        [kv_cache.context_blocks],
        NO_BLOCKS,
    )


def requests_stream(
    prompts: Sequence[PackedPrompt], block_tables: Sequence[BlockTable], shared: BlockLists
) -> TokenStream:
    """The own tokens of requests that have their blocks, one request behind the other. All have one shared
    prefix."""
    layouts = [prompt.layout for prompt in prompts]
    runs, request = tabulate([layout.runs for layout in layouts])
    prefilled = runs[:, run_columns.PREFILLED] == 1
    runs, request = runs[prefilled], request[prefilled]
    is_answer, lengths = runs[:, run_columns.FIRST] >= FIRST_ANSWER, runs[:, run_columns.LENGTH]
    biases = np.zeros((NUM_BIASES, len(runs)), dtype=np.float32)
    biases[:, is_answer] = np.array([own for layout in layouts for own in layout.biases]).T
    members = None
    if layouts[0].members is not None:
        members = np.full(len(runs), ALL_MEMBERS, dtype=np.int64)
        members[is_answer] = members_of(layouts)
    ids = [run_columns.FIRST, run_columns.VISIBLE_FIRST, run_columns.VISIBLE_LAST]
    runs[:, ids] += first_ids(block_tables)[request, None]
    tokens, requests = expand(runs), np.repeat(request, lengths)
    cache_slots, starts = all_slots(block_tables)
    columns = np.empty((7, len(tokens)), dtype=np.int64)
    columns[ID] = np.concatenate([prompt.token_ids for prompt in prompts])
    columns[POSITION] = tokens[:, run_columns.POSITION]
    columns[VISIBLE_FIRST] = tokens[:, run_columns.VISIBLE_FIRST]
    columns[VISIBLE_LAST] = tokens[:, run_columns.VISIBLE_LAST]
    columns[OWN] = tokens[:, run_columns.FIRST]
    columns[CAUSAL_INDEX] = layouts[0].first_causal_index + tokens[:, run_columns.SLOT]
    columns[SLOT] = cache_slots[starts[requests] + tokens[:, run_columns.SLOT]]
    blocks, up_to = prompt_blocks(layouts, block_tables)
    return TokenStream(
        columns,
        np.repeat(biases, lengths, axis=1),
        None if members is None else np.repeat(members, lengths),
        requests,
        up_to[requests, tokens[:, run_columns.SLOT] // BLOCK_SIZE],
        np.cumsum(lengths)[is_answer] - 1,
        blocks,
        shared,
    )


class PrefillInputs:
    """One size of pass: the static tensors it reads, refreshed in place, and their mask.

    Args:
        bucket: tokens that a stream is padded to, a multiple of QUERY_TILE.
        bias: what may be added to scores in this run (it decides on the graph, not the batch).
        subsets: whether a sequence of this run may see some of the paraphrases only (likewise).
    """

    def __init__(self, bucket: int, kv_cache: KVCache, *, bias: Bias | None, subsets: bool = False):
        assert bucket % QUERY_TILE == 0
        self.bucket, self.kv_cache, self.bias, self.subsets = bucket, kv_cache, bias, subsets
        device, tiles = kv_cache.device, bucket // QUERY_TILE
        self.tables = QueryTables.zeros((1, bucket), device)
        self.block_counts = torch.zeros((2, 1, 1, tiles), dtype=torch.int32, device=device)
        indices = (2, 1, 1, tiles, kv_cache.num_blocks)
        self.block_indices = torch.zeros(indices, dtype=torch.int32, device=device)
        self.mask_mod = make_visible(self.tables, kv_cache.tables, subsets=subsets)
        self.score_mod = make_score_mod(self.tables, kv_cache.tables, bias) if bias else None
        self.columns = torch.zeros((7, bucket), dtype=torch.int64, device=device)
        # by what is attended to apart, and whether attention is adaptive
        self.graphs: dict[tuple[Slots | None, bool], CudaGraph[HiddenStates]] = {}
        self.padding = np.zeros((7, bucket), dtype=np.int64)
        self.padding[[VISIBLE_FIRST, VISIBLE_LAST, OWN]] = PADDING_ID
        self.padding[SLOT] = np.arange(bucket) % BLOCK_SIZE  # of the scratch block

    def load(
        self,
        stream: TokenStream,
        backend: Backend,
        masks: BlockMaskCache,
        calls: Tensor,
        *,
        apart: Slots | None = None,
        adaptive: bool = False,
    ) -> tuple[Tensor, Tensor, AttentionMetadata]:
        """Token ids and positions, int64 [bucket], and how to attend: by flex, always the same tensors.

        Args:
            apart: slots of the context that the stream's block lists leave out.
            adaptive: whether its shared prefix is.
        """
        S, device = len(stream), self.kv_cache.device
        assert self.bucket >= S
        columns = self.padding.copy()
        columns[:, :S] = stream.columns
        columns_S = self.columns.copy_(to_device(columns, device))
        ids, positions, slots = columns_S[ID], columns_S[POSITION], columns_S[SLOT]
        visible, own, causal_index = columns_S[VISIBLE_FIRST:OWN], columns_S[OWN], columns_S[CAUSAL_INDEX]
        biases = None
        if self.bias or adaptive:
            biases = to_device(np.pad(stream.biases, ((0, 0), (0, self.bucket - S))), device)
        members = None
        if self.subsets:
            given = np.full(self.bucket, ALL_MEMBERS, dtype=np.int64)
            if stream.members is not None:
                given[:S] = stream.members
            members = to_device(given, device)
        self.tables.refresh(visible, own, causal_index, biases, members)
        if backend != "flex":
            blocks = np.concatenate([[0], stream.shared.full, stream.shared.partial, *stream.blocks])
            dense = make_dense_mask(
                to_device(blocks[None], device),
                BLOCK_SIZE,
                self.tables,
                self.kv_cache.tables,
                bias=self.bias,
                adaptive=adaptive,
            )
            return ids, positions, AttentionMetadata(backend, slots, calls, dense=dense)
        requests = np.pad(stream.requests, (0, self.bucket - S), constant_values=len(stream.blocks))
        own_blocks = [*stream.blocks, np.zeros(1, dtype=np.int64)]
        reach = np.pad(stream.reach, (0, self.bucket - S), constant_values=1)
        counts, indices = tile_blocks(requests, reach, stream.shared, own_blocks)
        self.block_counts.copy_(to_device(counts, device)[:, None, None])
        self.block_indices[..., : indices.shape[-1]] = to_device(indices, device)[:, None, None]
        metadata = AttentionMetadata(
            backend,
            slots,
            calls,
            self._mask(masks),
            self.score_mod,
            context=apart,
            context_bias=self.tables.context_bias if apart and self.bias == "all" else None,
            adaptive=AdaptiveTables(self.tables, self.kv_cache.tables) if adaptive else None,
        )
        return ids, positions, metadata

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
