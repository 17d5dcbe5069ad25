"""Runs the model on batches: packed prefill in passes, decode step by step by CUDA graph. Nothing else
calls it."""

from __future__ import annotations

import time
from collections.abc import Sequence as Listed

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from flexray.config import Backend
from flexray.config import fault_injection as faults
from flexray.engine.cuda_graph import CudaGraph
from flexray.engine.decode_inputs import DecodeInputs
from flexray.engine.kv_cache import KVCache, blocks_for, to_device
from flexray.engine.prefill_inputs import PrefillInputs, TokenStream, context_stream, requests_stream
from flexray.engine.request import Request, sequences_at_once
from flexray.engine.scheduler import Batch, DecodeBatch, PrefillBatch
from flexray.engine.scheduler_config import SchedulerConfig
from flexray.engine.sequence_table import SequenceTable
from flexray.engine.stats import EngineStats
from flexray.masks.block_masks import NO_BLOCKS, BlockMaskCache
from flexray.masks.layout import SharedContext
from flexray.models import llama

MASK_CACHE_BYTES = 256 * 2**20
COPIES_AT_ONCE = 256
"""Rotated copies of the context written in one go; bounds the memory this takes."""


class ModelRunner:
    """Owns what lies on the device beside the weights: KV cache, sequence table, and the inputs, masks and
    graphs of each batch size. It keeps them from one call to the next, as long as they are large enough.

    Args:
        model: patched by `llama.patch`.
        stop: bool [V], tokens that end an answer, on the model's device.
        max_new_tokens: of an answer.
        biased: whether any method of the run has a bias.
    """

    def __init__(
        self, model: llama.LlamaLike, stats: EngineStats, stop: Tensor, max_new_tokens: int, *, biased: bool
    ):
        self.model, self.device = model, llama.device_of(model)
        self.masks = BlockMaskCache(MASK_CACHE_BYTES)
        self._stats, self._stop, self._max_new_tokens, self._biased = stats, stop, max_new_tokens, biased
        self._context: SharedContext | None = None
        self._kv_cache: KVCache | None = None
        self._table: SequenceTable | None = None
        self._prefills: dict[int, PrefillInputs] = {}
        self._decodes: dict[tuple[Backend, int], DecodeInputs] = {}
        self._loaded: DecodeBatch | None = None
        self._backend: Backend = "flex"
        self._sizes: SchedulerConfig | None = None
        self._passes = self._calls_before = 0

    @property
    def kv_cache(self) -> KVCache:
        """Of the last `prepare`."""
        assert self._kv_cache is not None
        return self._kv_cache

    @property
    def table(self) -> SequenceTable:
        """Of the last `prepare`."""
        assert self._table is not None
        return self._table

    @torch.no_grad()
    def prepare(
        self, context: SharedContext, requests: Listed[Request], backend: Backend, sizes: SchedulerConfig
    ) -> None:
        """Get ready to run requests that share a context: with a KV cache and a table that are large
        enough, and the context in the cache. Backend and sizes hold until the next call."""
        self._backend, self._sizes, self._loaded = backend, sizes, None
        self._passes, self._calls_before = 0, int(self._stats.calls[backend])
        num_slots = sizes.cache_slots(len(context), [request.num_slots for request in requests])
        num_sequences = sequences_at_once(requests, sizes.max_num_seqs)
        width = blocks_for(len(context)) + max(blocks_for(request.num_slots) for request in requests)
        if (
            self._context != context
            or self.kv_cache.num_slots < num_slots
            or self.kv_cache.max_requests < sizes.max_num_seqs + sizes.lookahead
        ):
            self.reset()
            self._kv_cache = self._make_kv_cache(num_slots, sizes)
            self._context = context
        if self._table is None or self._table.max_sequences < num_sequences or self._table.max_blocks < width:
            self._drop_inputs()
            at_least, most = max(num_sequences, sizes.max_num_seqs), self.kv_cache.num_blocks
            self._table = SequenceTable(
                self.kv_cache, at_least, min(_round_up(width), most), self._max_new_tokens, self._stop
            )
        if context and not len(self.kv_cache.context_blocks):
            self.kv_cache.allocate_context(len(context), context.num_head)
            self._prefill(context_stream(context.token_ids, self.kv_cache))
            self._stats.context_tokens += len(context)

    def reset(self) -> None:
        """Forget everything on the device beside the weights, as after a fault: its state is unknown."""
        self._context = self._kv_cache = self._table = None
        self._drop_inputs()

    def _drop_inputs(self) -> None:
        self._prefills.clear()
        self._decodes.clear()
        self._loaded = None
        self.masks.clear()

    @torch.no_grad()
    def run(self, batch: Batch) -> Tensor:
        """One forward pass of a batch; of a prefill batch, as many as its tokens take.

        Returns:
            Logits [B, V] that each sequence's next token is chosen from. Those of a decode batch are padded
            to its bucket, and on a GPU overwritten by the next step.
        """
        start = time.perf_counter()
        if isinstance(batch, PrefillBatch):
            logits = self._run_prefill(batch)
            self._stats.prefill_seconds += time.perf_counter() - start
        else:
            logits = self._run_decode(batch)
            self._stats.decode_seconds += time.perf_counter() - start
        return logits

    def check_backend(self) -> None:
        """The proof that the backend, and no other, computed every layer of every pass since `prepare`."""
        counted = int(self._stats.calls[self._backend]) - self._calls_before
        num_layers = len(self.kv_cache.keys)
        assert counted == self._passes * num_layers, (
            f"{counted} calls, {self._passes} passes of {num_layers} layers"
        )

    def _run_prefill(self, batch: PrefillBatch) -> Tensor:
        requests, kv_cache = batch.requests, self.kv_cache
        if faults.expected():
            for request in requests:
                ids = " ".join(map(str, request.packed.token_ids))
                faults.reach("engine.prefill", backend=self._backend, ids=ids)
        self._copy_context(requests)
        sees_context = requests[0].packed.layout.sees_context
        stream = requests_stream(
            [request.packed for request in requests],
            [request.block_table for request in requests if request.block_table is not None],
            kv_cache.context_lists if sees_context else NO_BLOCKS,
        )
        hidden = self._prefill(stream)
        # the host's work from here on is done while the device prefills
        batch.rows = self.table.admit(requests, kv_cache.context_lists)
        self._stats.prefill_tokens += len(stream)
        self._stats.shared_tokens += sum(request.packed.num_shared for request in requests)
        return llama.logits(self.model, hidden)

    def _prefill(self, stream: TokenStream) -> Tensor:
        """Write a stream's K/V into the cache. Hidden states [B, hidden] of the tokens that answers begin
        at."""
        assert self._sizes is not None
        found = []
        for part in stream.passes(self._sizes):
            bucket = self._sizes.prefill_bucket(len(part))
            if bucket not in self._prefills:
                self._prefills[bucket] = PrefillInputs(bucket, self.kv_cache, biased=self._biased)
            calls = self._stats.calls[self._backend]
            ids, positions, metadata = self._prefills[bucket].load(part, self._backend, self.masks, calls)
            keys, values = self.kv_cache.keys, self.kv_cache.values
            hidden = llama.forward(self.model, ids[None], positions[None], metadata, keys, values)[0]
            self._passes += 1
            found.append(hidden[to_device(part.logits_indices, self.device)])
        return torch.cat(found)

    def _run_decode(self, batch: DecodeBatch) -> Tensor:
        """The next token's logits; on a GPU by replaying the step's CUDA graph."""
        inputs = self._inputs_of(batch)
        self._passes += 1
        self._stats.decode_steps += 1
        calls = self._stats.calls[self._backend]
        if self._backend != "flex":
            return self._decode(inputs, None, batch.num_blocks + len(self.kv_cache.context_blocks), calls)
        mask = inputs.block_mask(self.masks)
        if not inputs.rows.is_cuda:
            return self._decode(inputs, mask, 0, calls)
        if inputs.step is None or inputs.step_mask is not mask:
            inputs.step_mask = mask
            inputs.step = CudaGraph(lambda: self._decode(inputs, mask, 0, calls))
        logits = inputs.step()
        batch.is_replayed = inputs.step.is_captured
        return logits

    def _decode(self, inputs: DecodeInputs, mask: BlockMask | None, widest: int, calls: Tensor) -> Tensor:
        table, rows, kv_cache = self.table, inputs.rows, self.kv_cache
        metadata = inputs.metadata(mask, widest, calls)
        hidden = llama.forward(
            self.model,
            table.token[rows, None],
            table.position[rows, None],
            metadata,
            kv_cache.keys,
            kv_cache.values,
        )
        return llama.logits(self.model, hidden[:, 0])

    def _inputs_of(self, batch: DecodeBatch) -> DecodeInputs:
        """The inputs of the batch's size, with its sequences in them."""
        assert self._sizes is not None
        key = (self._backend, self._sizes.decode_bucket(len(batch.sequences)))
        if key not in self._decodes:
            heads = self.model.config.num_attention_heads // llama.num_kv_heads(self.model)
            self._decodes[key] = DecodeInputs(
                key[1], self.table, self.kv_cache, backend=key[0], group=heads, biased=self._biased
            )
        inputs = self._decodes[key]
        if batch is not self._loaded:
            inputs.load([sequence.row for sequence in batch.sequences])
            self._loaded, batch.rows = batch, inputs.rows
        return inputs

    @torch.no_grad()
    def _copy_context(self, requests: Listed[Request]) -> None:
        """Write requests' rotated copies of the context into their slots, in all layers."""
        kv_cache = self.kv_cache
        C = len(kv_cache.context_slots)
        copies = [request.packed.layout.copy_slots for request in requests]
        if not C or not any(map(len, copies)):
            return
        offsets = np.concatenate(copies)
        tables = [request.block_table for request in requests if request.block_table is not None]
        slots = np.concatenate(
            [t.slots[(c[:, None] + np.arange(C)).reshape(-1)] for c, t in zip(copies, tables, strict=True)]
        )
        source = to_device(kv_cache.context_slots, self.device)
        for start in range(0, len(offsets), COPIES_AT_ONCE):
            part = slice(start, start + COPIES_AT_ONCE)
            offsets_M = to_device(offsets[part], self.device)
            target = to_device(slots[part.start * C : part.stop * C], self.device)
            for keys, values in zip(kv_cache.keys, kv_cache.values, strict=True):
                rotated_MKCD = llama.rotate_keys(self.model, keys[:, source], offsets_M)
                keys[:, target] = rotated_MKCD.transpose(0, 1).flatten(1, 2)
                values[:, target] = values[:, source].repeat(1, len(offsets_M), 1)

    def _make_kv_cache(self, num_slots: int, sizes: SchedulerConfig) -> KVCache:
        return KVCache(
            num_layers=self.model.config.num_hidden_layers,
            num_kv_heads=llama.num_kv_heads(self.model),
            head_dim=self.model.model.layers[0].self_attn.head_dim,
            num_slots=num_slots,
            max_requests=sizes.max_num_seqs + sizes.lookahead,
            dtype=self.model.dtype,
            device=self.device,
        )


def _round_up(count: int) -> int:
    """The power of two that holds `count`: few sizes, so the table is seldom made anew."""
    return 1 << (count - 1).bit_length()
