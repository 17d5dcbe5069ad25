"""What a decode step reads: one token for each sequence of a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from flexray.config import Backend
from flexray.engine.cuda_graph import CudaGraph
from flexray.engine.kv_cache import BLOCK_SIZE, KVCache
from flexray.engine.sequence_table import SequenceTable
from flexray.masks.adaptive import AdaptiveTables
from flexray.masks.block_masks import BlockMaskCache, make_block_mask
from flexray.masks.visibility import Bias, QueryTables, make_score_mod, make_visible
from flexray.models.attention import AttentionMetadata, Slots, make_dense_mask
from flexray.models.llama import compiled


class DecodeInputs:
    """One batch size of one backend: the static tensors a step reads, refreshed in place, their mask, and
    on a GPU the step's CUDA graph.

    Args:
        group: query heads for each key/value head.
        splits: parts that a sequence's keys are attended to in: part p has every `splits`-th of its blocks,
            from the p-th on.
        apart: slots of the context that the sequences' block lists leave out.
        subsets: whether a sequence of this run may see some of the paraphrases only.
        adaptive: whether the sequences' shared prefix is.
    """

    def __init__(
        self,
        size: int,
        table: SequenceTable,
        kv_cache: KVCache,
        *,
        backend: Backend,
        group: int,
        splits: int,
        bias: Bias | None,
        apart: Slots | None,
        subsets: bool,
        adaptive: bool,
    ):
        self.size, self.table, self.kv_cache = size, table, kv_cache
        self.backend, self.bias, self.apart, self.subsets = backend, bias, apart, subsets
        self.adaptive = adaptive
        # an adaptive prefix needs the sum of all scores before it scales them
        self.splits = splits if backend == "flex" and not adaptive else 1
        device = kv_cache.device
        self.rows = torch.full((size,), table.padding_row, dtype=torch.int64, device=device)
        # folded heads are query tokens: each of the G copies of a sequence has the sequence's tables;
        # and the parts of its keys are batch rows
        num_parts = size * self.splits
        self.part_numbers = torch.arange(self.splits, device=device)
        self.rows_of_parts = self.rows.repeat_interleave(self.splits)
        self.tables = QueryTables.zeros((num_parts, group if backend == "flex" else 1), device)
        self.block_counts = torch.zeros((2, num_parts, 1, 1), dtype=torch.int32, device=device)
        indices = (2, num_parts, 1, 1, kv_cache.num_blocks)
        self.block_indices = torch.zeros(indices, dtype=torch.int32, device=device)
        self.mask_mod = make_visible(self.tables, kv_cache.tables, subsets=subsets)
        self.score_mod = make_score_mod(self.tables, kv_cache.tables, bias) if bias else None
        self.step: CudaGraph[Tensor] | None = None  # to the next logits, on a GPU by flex
        self.finish: CudaGraph[Tensor] | None = None  # from `hidden` to the first logits, likewise
        self.hidden: Tensor | None = None  # [size, 1, hidden], of prefilled tokens before the last layer

    def load(self, rows: Tensor) -> None:
        """Decode the sequences of these rows of the table, int64 [B], from now on."""
        table = self.table
        self.rows.fill_(table.padding_row)
        self.rows[: len(rows)] = rows
        self.rows_of_parts.copy_(self.rows[:, None].expand(-1, self.splits).reshape(-1))
        parts = self.rows_of_parts
        ids, biases = table.segment_ids[:, parts, None], table.biases[:, parts, None]
        members = table.members[parts, None] if self.subsets else None
        self.tables.refresh(ids[:2], ids[2], table.causal_index[parts, None], biases, members)
        blocks = table.block_indices[:, self.rows]
        for number in range(self.splits):
            own = blocks[..., number :: self.splits]
            self.block_indices[:, number :: self.splits, 0, 0, : own.shape[-1]] = own

    def block_mask(self, masks: BlockMaskCache) -> BlockMask:
        """The mask of this batch size over this cache: its tensors' contents follow the sequences."""
        kv_cache = self.kv_cache
        return masks.get(
            (
                "decode",
                self.size,
                self.apart,
                self.adaptive,
                self.splits,
                kv_cache.num_slots,
                BLOCK_SIZE,
                str(kv_cache.device),
            ),
            lambda: make_block_mask(
                self.block_counts,
                self.block_indices,
                query_tokens=self.tables.own.shape[1],
                block_size=BLOCK_SIZE,
                mask_mod=self.mask_mod,
            ),
        )

    def metadata(self, block_mask: BlockMask | None, widest: int, calls: Tensor) -> AttentionMetadata:
        """Refresh what a step has changed, and say how to attend.

        Args:
            widest: the most blocks, partial or full, that any of the sequences looks at.
        """
        on_gpu = self.rows.is_cuda and self.backend == "flex"
        slots = (compiled(_refresh, dynamic=True) if on_gpu else _refresh)(self)
        if self.backend == "flex":
            bias = self.tables.context_bias[:: self.splits, :1] if self.apart and self.bias == "all" else None
            return AttentionMetadata(
                "flex",
                slots,
                calls,
                block_mask,
                self.score_mod,
                fold_heads=True,
                key_splits=self.splits,
                context=self.apart,
                context_bias=bias,
                adaptive=AdaptiveTables(self.tables, self.kv_cache.tables) if self.adaptive else None,
            )
        # unused block indices are 0, the scratch block, which no real sequence sees
        blocks = self.block_indices[:, :, 0, 0, :widest].transpose(0, 1).flatten(1).long()
        dense = make_dense_mask(
            blocks,
            BLOCK_SIZE,
            self.tables,
            self.kv_cache.tables,
            bias=self.bias,
            adaptive=self.adaptive,
        )
        return AttentionMetadata(self.backend, slots, calls, dense=dense)


def _refresh(inputs: DecodeInputs) -> Tensor:
    """Refresh what a step has changed; slot mapping, int64 [B]."""
    table, rows, splits = inputs.table, inputs.rows, inputs.splits
    index = table.causal_index[inputs.rows_of_parts, None]
    inputs.tables.causal_index.copy_(index.expand_as(inputs.tables.causal_index))
    counts = table.block_counts(rows)[..., None] + (splits - 1 - inputs.part_numbers)
    inputs.block_counts.copy_((counts // splits).flatten(1)[:, :, None, None])
    return table.slot_mapping(rows)
