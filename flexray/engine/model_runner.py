"""Runs the model on batches: packed prefill in passes, decode step by step by CUDA graph. Nothing else
calls it."""

from __future__ import annotations

import time
from collections.abc import Sequence as Listed
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from flexray.config import Backend
from flexray.config import fault_injection as faults
from flexray.engine.context_copies import copy_context
from flexray.engine.cuda_graph import CudaGraph
from flexray.engine.decode_inputs import DecodeInputs
from flexray.engine.kv_cache import BLOCK_SIZE, KVCache, blocks_for, context_size
from flexray.engine.prefill_inputs import PrefillInputs, TokenStream, context_stream, requests_stream
from flexray.engine.request import Request, sequences_at_once
from flexray.engine.scheduler import Batch, DecodeBatch, PrefillBatch
from flexray.engine.scheduler_config import LARGEST_GRAPH, SchedulerConfig
from flexray.engine.sequence_table import FindEnd, SequenceTable
from flexray.engine.stats import EngineStats
from flexray.engine.transfers import to_device
from flexray.masks.block_masks import NO_BLOCKS, BlockMaskCache
from flexray.masks.shared_context import SharedContext
from flexray.masks.visibility import Bias
from flexray.models.attention import AttentionMetadata, Slots
from flexray.models.llama import Llama

MASK_CACHE_BYTES = 256 * 2**20


class ModelRunner:
    """Owns what lies on the device beside the weights: KV cache, sequence table, and the inputs, masks and
    graphs of each batch size. It keeps them from one call to the next, as long as they are large enough.

    Args:
        model: with its weights on the device.
        stop: bool [V], tokens that end an answer, on the model's device.
        max_new_tokens: of an answer.
        bias: what may be added to scores by any method of the run.
        logprobs, find_end, forced: see SequenceTable.
        subsets: whether a sequence of any method may see some of the paraphrases only.
    """

    def __init__(
        self,
        model: Llama,
        stats: EngineStats,
        stop: Tensor,
        max_new_tokens: int,
        *,
        bias: Bias | None,
        logprobs: int | None = None,
        find_end: FindEnd | None = None,
        subsets: bool = False,
        forced: bool = False,
    ):
        self.model, self.device = model, model.device
        self.masks = BlockMaskCache(MASK_CACHE_BYTES)
        self._stats, self._stop, self._max_new_tokens, self._bias = stats, stop, max_new_tokens, bias
        self._logprobs, self._find_end = logprobs, find_end
        self._subsets, self._forced = subsets, forced
        self._context: SharedContext | None = None
        self._kv_cache: KVCache | None = None
        self._table: SequenceTable | None = None
        self._prefills: dict[int, PrefillInputs] = {}
        self._decodes: dict[tuple[Backend, int, Slots | None, bool, int], DecodeInputs] = {}
        # slots of the context that passes and decode steps attend to apart: block lists leave them out
        self._apart_in_prefill: Slots | None = None
        self._apart_in_decode: Slots | None = None
        self._adaptive = False  # whether the requests' shared prefix is
        self._widest = 0  # blocks that a sequence may attend to, the context's among them
        self._loaded: DecodeBatch | None = None
        self._backend: Backend = "flex"
        self._sizes: SchedulerConfig | None = None
        self._expected_calls = self._calls_before = 0

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
        self._expected_calls, self._calls_before = 0, int(self._stats.calls[backend])
        num_slots = sizes.cache_slots(context_size(context), [request.most_slots for request in requests])
        width = context_size(context) // BLOCK_SIZE + max(
            blocks_for(request.most_slots) for request in requests
        )
        self._widest = width
        kept = self._context  # at other positions it takes the same slots
        if (
            kept is None
            or replace(kept, continuous=context.continuous) != context
            or self.kv_cache.num_slots < num_slots
            or self.kv_cache.max_requests < sizes.max_num_requests + sizes.lookahead
        ):
            self.reset()
            self._kv_cache = self._make_kv_cache(num_slots, sizes)
        num_sequences = min(  # each has slots of its own in the cache for what it generates
            sequences_at_once(requests, sizes.max_num_requests),
            self.kv_cache.num_slots // min(request.max_new_tokens for request in requests),
        )
        if self._table is None or self._table.max_sequences < num_sequences or self._table.max_blocks < width:
            self._drop_inputs()
            at_least, most = max(num_sequences, sizes.max_num_seqs), self.kv_cache.num_blocks
            self._table = SequenceTable(
                self.kv_cache,
                at_least,
                min(_round_up(width), most),
                self._max_new_tokens,
                self._stop,
                logprobs=self._logprobs,
                forced=self._forced,
                find_end=self._find_end,
                subsets=self._subsets,
            )
        if context and self._context != context:
            if not len(self.kv_cache.context_blocks):
                self.kv_cache.allocate_context(context)
            self._apart_in_prefill, self._adaptive = None, False
            self._prefill(context_stream(context, self.kv_cache), once=True)
            self._stats.context_tokens += len(context)
        self._context = context
        sees_context = not requests[0].group.prefix.copies
        self._adaptive = requests[0].group.prefix.adaptive
        together = sizes.decode_bucket(min(num_sequences, sizes.max_num_seqs))
        self._apart_in_prefill = self._apart(sizes.apart_in_prefill, 1) if sees_context else None
        self._apart_in_decode = self._apart(sizes.apart_in_decode, together) if sees_context else None

    def reset(self) -> None:
        """Forget everything on the device beside the weights, as after a fault: its state is unknown."""
        self._drop_inputs()
        self._context = self._kv_cache = self._table = None

    def _drop_inputs(self) -> None:
        for inputs in self._decodes.values():
            inputs.step = inputs.finish = None  # they hold the inputs, which hold the KV cache
        if self._table is not None:
            self._table.forget_graphs()
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
        assert counted == self._expected_calls, f"{counted} calls, not {self._expected_calls}"

    def _run_prefill(self, batch: PrefillBatch) -> Tensor:
        requests, kv_cache = batch.requests, self.kv_cache
        if faults.expected():
            for request in requests:
                ids = " ".join(map(str, request.packed.token_ids))
                faults.reach("engine.prefill", backend=self._backend, ids=ids)
        copy_context(self.model, kv_cache, requests, compiles=self._is_graphed)
        sees_context = requests[0].packed.layout.sees_context
        head = requests[0].group.prefix.head_in_context
        stream = requests_stream(
            [request.packed for request in requests],
            [request.block_table for request in requests if request.block_table is not None],
            kv_cache.context_lists(head=head, apart=self._apart_in_prefill) if sees_context else NO_BLOCKS,
        )
        hidden = self._prefill(stream)
        # the host's work from here on is done while the device prefills
        batch.rows = self.table.admit(
            requests, kv_cache.context_lists(head=head, apart=self._apart_in_decode)
        )
        self._stats.prefill_tokens += len(stream)
        self._stats.shared_tokens += sum(request.packed.num_shared for request in requests)
        logits = self._finish_prefill(batch, hidden)
        if self._backend != "flex":
            kv_cache.zero_scratch()
        return logits

    def _prefill(self, stream: TokenStream, *, once: bool = False) -> Tensor:
        """Write a stream's K/V into the cache. Hidden states [B, hidden] that go into the last layer, of the
        tokens that answers begin at.

        Args:
            once: there will be none like it, so it is not worth a graph.
        """
        assert self._sizes is not None
        found, apart, adaptive = [], self._apart_in_prefill, self._adaptive
        for part in stream.passes(self._sizes):
            bucket = self._sizes.prefill_bucket(len(part))
            if bucket not in self._prefills:
                self._prefills[bucket] = PrefillInputs(
                    bucket, self.kv_cache, bias=self._bias, subsets=self._subsets
                )
            inputs, calls = self._prefills[bucket], self._stats.calls[self._backend]
            ids, positions, metadata = inputs.load(
                part, self._backend, self.masks, calls, apart=apart, adaptive=adaptive
            )
            keys, values = self.kv_cache.keys, self.kv_cache.values
            run = partial(self.model.prefill, ids[None], positions[None], metadata, keys, values)
            is_graphed = self._is_graphed and bucket <= LARGEST_GRAPH and not once
            if is_graphed and (apart, adaptive) not in inputs.graphs:
                inputs.graphs[apart, adaptive] = CudaGraph(run)
            hidden, update = inputs.graphs[apart, adaptive]() if is_graphed else run()
            indices = to_device(part.logits_indices, self.device)
            found.append(hidden[0, indices] + update[0, indices])
            self._expected_calls += self.model.num_layers - 1
        return torch.cat(found)

    def _finish_prefill(self, batch: PrefillBatch, hidden_B: Tensor) -> Tensor:
        """Logits [B, V] of the tokens that answers begin at: the last layer and what follows, as in a step of
        decoding that has no token yet to write."""
        assert self._sizes is not None
        assert batch.rows is not None
        found, most = [], self._sizes.max_num_seqs
        widest = max(len(r.block_table.blocks) for r in batch.requests if r.block_table is not None)
        self._loaded = None
        for start in range(0, len(hidden_B), most):
            rows = batch.rows[start : start + most]
            inputs = self._inputs_for(len(rows))
            inputs.load(rows)
            if inputs.hidden is None:
                inputs.hidden = hidden_B.new_zeros(inputs.size, 1, hidden_B.shape[-1])
            inputs.hidden.zero_()
            inputs.hidden[: len(rows), 0] = hidden_B[start : start + most]
            if self._is_graphed:
                self._make_graphs(inputs, widest)
                assert inputs.finish is not None
                logits = inputs.finish()
            else:
                logits = self._finish(inputs, widest)
            self._expected_calls += 1
            found.append(logits[: len(rows)].clone())  # a graph's next replay overwrites them
        return torch.cat(found) if len(found) > 1 else found[0]

    def _finish(self, inputs: DecodeInputs, widest: int) -> Tensor:
        assert inputs.hidden is not None
        metadata, positions = self._metadata(inputs, widest), self.table.position[inputs.rows, None]
        keys, values = self.kv_cache.keys, self.kv_cache.values
        hidden = self.model.finish(inputs.hidden, positions, metadata, keys, values)
        return self.model.logits(hidden[:, 0])

    def _run_decode(self, batch: DecodeBatch) -> Tensor:
        """The next token's logits; on a GPU by replaying the step's CUDA graph."""
        inputs = self._inputs_for(len(batch.sequences))
        if batch is not self._loaded:
            rows = [sequence.row for sequence in batch.sequences]
            inputs.load(to_device(np.asarray(rows), self.device))
            self._loaded, batch.rows = batch, inputs.rows
        self._expected_calls += self.model.num_layers
        self._stats.decode_steps += 1
        if not self._is_graphed:
            return self._decode(inputs, batch.num_blocks)
        self._make_graphs(inputs, batch.num_blocks)
        assert inputs.step is not None
        logits = inputs.step()
        batch.is_replayed = inputs.step.is_captured
        return logits

    @property
    def _is_graphed(self) -> bool:
        """Whether forward passes are CUDA graphs."""
        return self._backend == "flex" and self.device.type == "cuda"

    def _make_graphs(self, inputs: DecodeInputs, widest: int) -> None:
        """Make the graphs of a batch size, unless there are some. A mask that the cache has made anew is a
        view of the same tensors."""
        inputs.block_mask(self.masks)  # counted, and kept in the cache
        if inputs.step is None:
            inputs.step = CudaGraph(lambda: self._decode(inputs, widest))
            inputs.finish = CudaGraph(lambda: self._finish(inputs, widest))

    def _apart(self, least: int, sequences: int) -> Slots | None:
        """The slots of the context that queries attend to apart, if they are so many times so many sequences;
        0: never."""
        start, stop = self.kv_cache.plain_context
        pays = 0 < least <= (stop - start) * sequences
        return (start, stop) if pays and self._backend == "flex" else None

    def _decode(self, inputs: DecodeInputs, widest: int) -> Tensor:
        table, rows, kv_cache = self.table, inputs.rows, self.kv_cache
        metadata = self._metadata(inputs, widest)
        ids, positions = table.token[rows, None], table.position[rows, None]
        hidden = self.model.forward(ids, positions, metadata, kv_cache.keys, kv_cache.values)
        return self.model.logits(hidden[:, 0])

    def _metadata(self, inputs: DecodeInputs, widest: int) -> AttentionMetadata:
        """How the sequences attend now. `widest`: KV blocks of the widest of their requests."""
        mask = inputs.block_mask(self.masks) if self._backend == "flex" else None
        widest += len(self.kv_cache.context_blocks)
        return inputs.metadata(mask, widest, self._stats.calls[self._backend])

    def _inputs_for(self, num_sequences: int) -> DecodeInputs:
        """The inputs of a batch of this size."""
        assert self._sizes is not None
        size, shape, apart = self._sizes.decode_bucket(num_sequences), self.model.shape, self._apart_in_decode
        blocks = self._widest - (0 if apart is None else (apart[1] - apart[0]) // BLOCK_SIZE)
        splits = self._sizes.key_splits(size, shape.num_kv_heads, blocks)
        key = (self._backend, size, apart, self._adaptive, splits)
        if key not in self._decodes:
            heads = shape.num_heads // shape.num_kv_heads
            self._decodes[key] = DecodeInputs(
                size,
                self.table,
                self.kv_cache,
                backend=self._backend,
                group=heads,
                splits=splits,
                bias=self._bias,
                subsets=self._subsets,
                apart=apart,
                adaptive=self._adaptive,
            )
        return self._decodes[key]

    def _make_kv_cache(self, num_slots: int, sizes: SchedulerConfig) -> KVCache:
        return KVCache(
            num_layers=self.model.num_layers,
            num_kv_heads=self.model.shape.num_kv_heads,
            head_dim=self.model.shape.head_dim,
            num_slots=num_slots,
            max_requests=sizes.max_num_requests + sizes.lookahead,
            dtype=self.model.dtype,
            device=self.device,
        )


def _round_up(count: int) -> int:
    """The power of two that holds `count`: few sizes, so the table is seldom made anew."""
    return 1 << (count - 1).bit_length()
