"""The engine: prompts in, generations out. `_step` is the whole flow: admit, decode, retire."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from flexray.config import EngineConfig, MethodConfig
from flexray.engine import llama
from flexray.engine.budget import Budget, plan_budget
from flexray.engine.decode import DecodeBatch, DecodeState, decode_step
from flexray.engine.fallback import describe, fallback_errors, is_out_of_memory, next_backends
from flexray.engine.kv_pool import KVPool, Placement
from flexray.engine.prefill import Stream, context_stream, copy_context, prefill, rows_stream
from flexray.engine.stats import EngineStats
from flexray.engine.stopping import StopRule, make_stop_rule
from flexray.masks.block_mask import BlockMaskCache
from flexray.masks.layout import SampleLayout, lay_out
from flexray.types import Backend, Generation, Prompt

MASK_CACHE_BYTES = 256 * 2**20


@dataclass(slots=True)
class _Row:
    """A prompt on its way."""

    index: int  # in the caller's list
    sample: SampleLayout
    placement: Placement | None = None


class Engine:
    """Answers prompts with one LLaMA, greedily, by one method.

    Args:
        model: a LlamaForCausalLM in eval mode, on its device. It is patched in place, and must own its
            config object.
        tokenizer: tells which tokens end an answer.

    The model's device and dtype are the engine's. Nothing here knows of Ray.
    """

    def __init__(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, method: MethodConfig, config: EngineConfig
    ):
        llama.patch(model)
        self.model, self.method, self.config = model, method, config
        self.device = llama.device_of(model)
        self.stop_rule: StopRule = make_stop_rule(model, tokenizer, at_newline=method.stop_at_newline)
        self.stop = self.stop_rule.any.to(self.device)
        self.budget: Budget = plan_budget(model, config)
        self.mask_cache = BlockMaskCache(MASK_CACHE_BYTES)
        self.stats = EngineStats.zero(self.device)
        self.broken: dict[Backend, str] = {}  # backends that failed, and how
        self._context: tuple[int, ...] | None = None
        self._pool: KVPool | None = None

    def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
        """Answer prompts, each once, in the order given.

        A backend that fails on the named list of errors hands over to the next, with the same mask; out
        of memory halves the rows at once first. A prompt that cannot be answered gets a Generation with
        `error` set.

        Raises:
            the backend's own error, with `strict`; any error that is not on the list, always.
        """
        done: dict[int, Generation] = {}
        by_context: dict[tuple[int, ...], list[_Row]] = {}
        for i, prompt in enumerate(prompts):
            sample = lay_out(prompt, self.method.layout, self.method.positions)
            by_context.setdefault(prompt.context, []).append(_Row(i, sample))
        for context, rows in by_context.items():
            # length-sorted: rows prefilled together are alike, and the long ones find the pool empty
            rows.sort(key=lambda r: -r.sample.num_tokens)
            self._answer(context, rows, done)
        return [done[i] for i in range(len(prompts))]

    def _answer(self, context: tuple[int, ...], rows: list[_Row], done: dict[int, Generation]) -> None:
        """Go down the ladder of backends until every row is done."""
        reasons: list[str] = []
        attempts = 0
        for backend in next_backends(self.config.backend):
            if backend in self.broken:
                reasons.append(self.broken[backend])
                continue
            while True:
                attempts += 1
                try:
                    for row, token_ids in self._run(context, [r for r in rows if r.index not in done], backend):
                        done[row.index] = self._generation(token_ids, backend, reasons, attempts)
                    return
                except (torch.OutOfMemoryError, *fallback_errors()) as error:
                    self._drop_pool()
                    if self.config.strict:
                        raise
                    reason = describe(backend, error)
                    if is_out_of_memory(error) and self.budget.max_rows > 1:
                        self.budget = self.budget.halved()
                        reasons.append(f"{reason} (rows at once halved to {self.budget.max_rows})")
                        continue
                    self.broken[backend] = reason
                    reasons.append(reason)
                    break
        for row in rows:
            if row.index not in done:
                done[row.index] = Generation(
                    finish_reason="error",
                    backend_requested=self.config.backend,
                    fallback_reason="; ".join(reasons),
                    attempts=max(attempts, 1),
                    error="no backend could answer this row: " + "; ".join(reasons),
                )

    def _run(self, context: tuple[int, ...], rows: list[_Row], backend: Backend) -> Iterator[tuple[_Row, list[int]]]:
        """Answer rows by one backend; yields each as soon as it is done."""
        if not rows:
            return
        pool = self._pool_for(context, rows, backend)
        state = DecodeState(pool, self.method.max_new_tokens)
        waiting, active = deque(rows), list[_Row]()
        batches: dict[int, DecodeBatch] = {}
        passes = _Passes(self.stats, backend)
        try:
            while waiting or active:
                self._admit(waiting, active, pool, state, passes)
                self._decode(active, pool, state, batches, passes)
                yield from self._retire(active, pool, state)
        finally:
            for row in active:
                assert row.placement is not None
                pool.release(row.placement)
        passes.check(num_layers=len(pool.keys))

    def _admit(
        self, waiting: deque[_Row], active: list[_Row], pool: KVPool, state: DecodeState, passes: _Passes
    ) -> None:
        """Place and prefill waiting rows, if enough of them have room to make a pass worth while."""
        room = min(len(waiting), self.budget.max_rows - len(active))
        if not room or (active and room < min(len(waiting), self.budget.max_rows // 4)):
            return
        new: list[_Row] = []
        while len(new) < room and pool.fits(waiting[0].sample, state.max_new_tokens):
            row = waiting.popleft()
            row.placement = pool.place(row.sample, state.max_new_tokens)
            new.append(row)
        if not new:
            assert active, "the pool holds the largest row: see _pool_for"
            return
        active += new
        start = time.perf_counter()
        samples, placements = [r.sample for r in new], [r.placement for r in new if r.placement is not None]
        for sample, placement in zip(samples, placements, strict=True):
            copy_context(self.model, pool, sample, placement)
        last_BD = self._prefill(rows_stream(samples, placements, pool), pool, passes, last_of_each=True)
        first_tokens = llama.logits(self.model, last_BD).argmax(-1)
        state.admit(samples, placements, pool.context_blocks, first_tokens, self.stop)
        self.stats.prefill_tokens += sum(s.num_tokens for s in samples)
        self.stats.prefill_seconds += time.perf_counter() - start

    def _decode(
        self, active: list[_Row], pool: KVPool, state: DecodeState, batches: dict[int, DecodeBatch], passes: _Passes
    ) -> None:
        """A few steps for all active rows: as many as go by before the host looks who is done."""
        start = time.perf_counter()
        size = self.budget.decode_bucket(len(active))
        if size not in batches:
            batches[size] = DecodeBatch(
                size, state, pool, backend=passes.backend, group=self._group, biased=self._biased
            )
        batch = batches[size]
        placements = [r.placement for r in active if r.placement is not None]
        batch.choose([p.row for p in placements])
        widest = len(pool.context_blocks) + max(len(p.blocks) for p in placements)
        for _ in range(min(self.budget.steps_per_look, state.max_new_tokens - 1)):
            decode_step(self.model, batch, self.stop, self.mask_cache, widest, self.stats.calls[passes.backend])
            passes.count += 1
            self.stats.decode_steps += 1
        self.stats.decode_seconds += time.perf_counter() - start

    def _retire(self, active: list[_Row], pool: KVPool, state: DecodeState) -> Iterator[tuple[_Row, list[int]]]:
        """Take out the rows that are done."""
        places = torch.tensor([r.placement.row for r in active if r.placement], device=self.device)
        done, produced = state.done[places].tolist(), state.produced[places].tolist()
        finished = [i for i, d in enumerate(done) if d]
        if not finished:
            return
        output = state.output[places].tolist()
        rows = [active[i] for i in finished]
        active[:] = [row for row, d in zip(active, done, strict=True) if not d]
        for i, row in zip(finished, rows, strict=True):
            assert row.placement is not None
            pool.release(row.placement)
            self.stats.generated_tokens += produced[i]
            yield row, output[i][: produced[i]]

    def _prefill(self, stream: Stream, pool: KVPool, passes: _Passes, *, last_of_each: bool) -> Tensor:
        """Run a stream in passes; hidden states [N, hidden] of the last token of each of its N rows."""
        ends = []
        for part in stream.passes(self.budget.max_prefill_tokens):
            hidden = prefill(
                self.model,
                pool,
                part,
                backend=passes.backend,
                bucket=self.budget.prefill_bucket(len(part)),
                biased=self._biased,
                cache=self.mask_cache,
                calls=self.stats.calls[passes.backend],
            )
            passes.count += 1
            if last_of_each:
                ends.append(hidden[part.row_ends().to(self.device)])
        return torch.cat(ends) if ends else torch.empty(0)

    def _pool_for(self, context: tuple[int, ...], rows: list[_Row], backend: Backend) -> KVPool:
        """The pool with this context in it; made anew when the context is another or a row is too large."""
        needs = [
            len(r.sample.copy_offsets) * len(context) + r.sample.num_tokens + self.method.max_new_tokens for r in rows
        ]
        num_slots = self.budget.pool_slots(len(context), needs)
        if self._pool is not None and self._context == context and self._pool.num_slots >= num_slots:
            return self._pool
        self._drop_pool()
        config = self.model.config
        pool = KVPool(
            num_layers=config.num_hidden_layers,
            num_kv_heads=config.num_key_value_heads,
            head_dim=self.model.model.layers[0].self_attn.head_dim,
            num_slots=num_slots,
            max_rows=self.budget.max_rows,
            dtype=next(self.model.parameters()).dtype,
            device=self.device,
        )
        if context:
            pool.place_context(len(context))
            passes = _Passes(self.stats, backend)
            self._prefill(context_stream(context, pool), pool, passes, last_of_each=False)
            self.stats.context_tokens += len(context)
        self._pool, self._context = pool, context
        return pool

    def _drop_pool(self) -> None:
        self._pool = self._context = None
        self.mask_cache.clear()

    @property
    def _group(self) -> int:
        return self.model.config.num_attention_heads // self.model.config.num_key_value_heads

    @property
    def _biased(self) -> bool:
        return self.method.layout == "full_prompt" and self.method.positions == "restart"

    def _generation(self, token_ids: list[int], backend: Backend, reasons: list[str], attempts: int) -> Generation:
        return Generation(
            token_ids=tuple(token_ids),
            finish_reason=self.stop_rule.reason(token_ids[-1]),
            backend_requested=self.config.backend,
            backend_used=backend,
            fallback_reason="; ".join(reasons),
            attempts=attempts,
        )


@dataclass(slots=True)
class _Passes:
    """Forward passes of one run by one backend, to be held against the calls that the device counted."""

    stats: EngineStats
    backend: Backend
    count: int = 0
    before: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.before = int(self.stats.calls[self.backend])

    def check(self, num_layers: int) -> None:
        """The proof that this backend, and no other, computed every layer of every pass."""
        counted = int(self.stats.calls[self.backend]) - self.before
        assert counted == self.count * num_layers, f"{counted} calls, {self.count} passes of {num_layers} layers"
