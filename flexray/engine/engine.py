"""The engine: prompts in, generations out. `_run` is the whole flow: admit, decode, retire."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from flexray.config import EngineConfig, MethodConfig
from flexray.engine import llama
from flexray.engine.budget import Budget, plan_budget
from flexray.engine.decode import DecodeState, decode
from flexray.engine.desk import Desk, Passes, Row
from flexray.engine.fallback import describe, handled_errors, is_out_of_memory, next_backends
from flexray.engine.kv_pool import KVPool
from flexray.engine.prefill import Stream, context_stream, copy_context, prefill, rows_stream
from flexray.engine.stats import EngineStats
from flexray.engine.stopping import StopRule, make_stop_rule
from flexray.engine.transfer import to_device
from flexray.masks.block_mask import BlockMaskCache
from flexray.types import Backend, Generation, Prompt

MASK_CACHE_BYTES = 256 * 2**20


class Engine:
    """Answers prompts with one LLaMA, greedily, by one method.

    Args:
        model: a LlamaForCausalLM in eval mode, on its device. It is patched in place, and must own its
            config object.
        tokenizer: tells which tokens end an answer.

    The model's device and dtype are the engine's. Nothing here knows of Ray.
    """

    def __init__(
        self,
        model: LlamaForCausalLM,
        tokenizer: PreTrainedTokenizerBase,
        method: MethodConfig,
        config: EngineConfig,
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
        self._desk: Desk | None = None

    def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
        """Answer prompts, each once, in the order given.

        A backend that fails on the named list of errors hands over to the next, with the same mask; out
        of memory halves the rows at once first. A prompt that cannot be answered gets a Generation with
        `error` set.

        Raises:
            the backend's own error, with `strict`; any error that is not on the list, always.
        """
        done: dict[int, Generation] = {}
        by_context: dict[tuple[int, ...], list[Row]] = {}
        for i, prompt in enumerate(prompts):
            by_context.setdefault(prompt.context, []).append(Row(i, prompt, self.method))
        for context, rows in by_context.items():
            # length-sorted: rows prefilled together are alike, and the long ones find the pool empty
            rows.sort(key=lambda r: -r.num_tokens)
            self._refuse_too_large(context, rows, done)
            self._answer(context, [r for r in rows if r.index not in done], done)
        return [done[i] for i in range(len(prompts))]

    def _refuse_too_large(
        self, context: tuple[int, ...], rows: list[Row], done: dict[int, Generation]
    ) -> None:
        """Rows that no pool on this device can hold, estimated before anything is computed."""
        for row in rows:
            needed = self.budget.least_slots(len(context), self._slots_needed(row))
            if needed > self.budget.max_slots:
                reason = f"needs a KV pool of {needed} slots; the memory holds {self.budget.max_slots}"
                done[row.index] = self._failure(reason, [], 1)

    def _slots_needed(self, row: Row) -> int:
        copied = self.method.layout == "full_prompt" and self.method.positions == "continuous"
        copies = copied * len(row.prompt.segments) * len(row.prompt.context)
        return copies + row.num_tokens + self.method.max_new_tokens

    def _answer(self, context: tuple[int, ...], rows: list[Row], done: dict[int, Generation]) -> None:
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
                    for row, token_ids in self._run(
                        context, [r for r in rows if r.index not in done], backend
                    ):
                        done[row.index] = self._generation(token_ids, backend, reasons, attempts)
                    return
                except handled_errors() as error:
                    self._drop_desk()
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
                why = "no backend could answer this row: " + "; ".join(reasons)
                done[row.index] = self._failure(why, reasons, attempts)

    def _run(
        self, context: tuple[int, ...], rows: list[Row], backend: Backend
    ) -> Iterator[tuple[Row, list[int]]]:
        """Answer rows by one backend; yields each as soon as it is done."""
        if not rows:
            return
        desk = self._desk_for(context, rows, backend)
        passes = Passes(self.stats, backend)
        waiting, active, finished = deque(rows), list[Row](), list[tuple[Row, list[int]]]()
        try:
            while waiting or active:
                self._admit(waiting, active, desk, passes)
                yield from finished  # the caller's work with them is done while the device prefills
                self._decode(active, desk, passes)
                self._place(waiting, self.budget.rows_ahead, desk)
                finished = self._retire(active, desk)
            yield from finished
        finally:
            held = [row for row in (*active, *waiting) if row.placement is not None]
            desk.pool.release([row.placed for row in held])
            for row in held:
                row.placement = None
        passes.check(num_layers=len(desk.pool.keys))

    def _place(self, waiting: deque[Row], count: int, desk: Desk) -> int:
        """Give the first `count` waiting rows their places, as far as there is room; returns how many have
        one. Beyond what may be active at once: the host's work for rows to come is done while the device
        is at work."""
        first = list(itertools.islice(waiting, count))
        new = [row for row in first if row.placement is None]
        placements = desk.pool.place([row.sample for row in new], desk.state.max_new_tokens)
        for row, placement in zip(new, placements, strict=False):
            row.placement = placement
        return len(first) - len(new) + len(placements)

    def _admit(self, waiting: deque[Row], active: list[Row], desk: Desk, passes: Passes) -> None:
        """Prefill waiting rows, if there is room for enough of them to make a pass worth while."""
        room = min(len(waiting), self.budget.max_rows - len(active))
        if not room or (active and room < min(len(waiting), self.budget.max_rows // 4)):
            return
        start = time.perf_counter()
        new = [waiting.popleft() for _ in range(self._place(waiting, room, desk))]
        if not new:
            assert active, "the pool holds the largest row: see _desk_for"
            return
        active += new
        pool, state = desk.pool, desk.state
        samples, placements = [row.sample for row in new], [row.placed for row in new]
        for row in new:
            row.steps_left = state.max_new_tokens - 1
        copy_context(self.model, pool, samples, placements)
        last_BD = self._prefill(rows_stream(samples, placements, pool), pool, passes)
        first_tokens = llama.logits(self.model, last_BD).argmax(-1)
        state.admit(samples, placements, pool.context_lists, first_tokens, self.stop)
        self.stats.prefill_tokens += sum(s.num_tokens for s in samples)
        self.stats.prefill_seconds += time.perf_counter() - start

    def _decode(self, active: list[Row], desk: Desk, passes: Passes) -> None:
        """A few steps for all active rows: as many as go by before the host looks who is done."""
        start = time.perf_counter()
        batch = desk.batch(self.budget.decode_bucket(len(active)), passes.backend)
        batch.choose([row.placed.row for row in active])
        widest = len(desk.pool.context_blocks) + max(len(row.placed.blocks) for row in active)
        steps = min(self.budget.steps_per_look, max(row.steps_left for row in active))
        for row in active:
            row.steps_left -= steps
        for _ in range(steps):
            decode(self.model, batch, self.stop, self.mask_cache, widest, self.stats.calls[passes.backend])
            passes.count += 1
            self.stats.decode_steps += 1
        self.stats.decode_seconds += time.perf_counter() - start

    def _retire(self, active: list[Row], desk: Desk) -> list[tuple[Row, list[int]]]:
        """Take out the rows that are done, with what they generated."""
        start = time.perf_counter()
        state = desk.state
        places = to_device(np.asarray([row.placed.row for row in active]), self.device)
        done, produced = torch.stack([state.done[places].long(), state.produced[places]]).tolist()
        self.stats.decode_seconds += time.perf_counter() - start  # the device's: this is where the host waits
        if not any(done):
            return []
        output = state.output[places].tolist()
        finished = [(row, output[i][: produced[i]]) for i, row in enumerate(active) if done[i]]
        active[:] = [row for i, row in enumerate(active) if not done[i]]
        desk.pool.release([row.placed for row, _ in finished])
        for row, _ in finished:
            row.placement = None
        self.stats.generated_tokens += sum(len(token_ids) for _, token_ids in finished)
        return finished

    def _prefill(self, stream: Stream, pool: KVPool, passes: Passes) -> Tensor:
        """Run a stream in passes; hidden states [N, hidden] of the last token of each of its N rows."""
        ends = []
        for part in stream.passes(self.budget):
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
            ends.append(hidden[to_device(part.row_ends, self.device)])
        return torch.cat(ends)

    def _desk_for(self, context: tuple[int, ...], rows: list[Row], backend: Backend) -> Desk:
        """The desk with this context in its pool; a new one for another context or too large a row."""
        needs = [self._slots_needed(row) for row in rows]
        num_slots = self.budget.pool_slots(len(context), needs)
        if (
            self._desk is not None
            and self._desk.context == context
            and self._desk.pool.num_slots >= num_slots
        ):
            return self._desk
        self._drop_desk()
        shape = self.model.config
        num_kv_heads = llama.num_kv_heads(self.model)
        pool = KVPool(
            num_layers=shape.num_hidden_layers,
            num_kv_heads=num_kv_heads,
            head_dim=self.model.model.layers[0].self_attn.head_dim,
            num_slots=num_slots,
            max_rows=self.budget.max_rows + self.budget.rows_ahead,
            dtype=self.model.dtype,
            device=self.device,
        )
        if context:
            pool.place_context(len(context))
            self._prefill(context_stream(context, pool), pool, Passes(self.stats, backend))
            self.stats.context_tokens += len(context)
        group = shape.num_attention_heads // num_kv_heads
        self._desk = Desk(context, pool, DecodeState(pool, self.method.max_new_tokens), group, self._biased)
        return self._desk

    def _drop_desk(self) -> None:
        self._desk = None
        self.mask_cache.clear()

    @property
    def _biased(self) -> bool:
        return self.method.layout == "full_prompt" and self.method.positions == "restart"

    def _failure(self, error: str, reasons: list[str], attempts: int) -> Generation:
        return Generation(
            finish_reason="error",
            backend_requested=self.config.backend,
            fallback_reason="; ".join(reasons),
            attempts=attempts,
            error=error,
        )

    def _generation(
        self, token_ids: list[int], backend: Backend, reasons: list[str], attempts: int
    ) -> Generation:
        return Generation(
            token_ids=tuple(token_ids),
            finish_reason=self.stop_rule.reason(token_ids[-1]),
            backend_requested=self.config.backend,
            backend_used=backend,
            fallback_reason="; ".join(reasons),
            attempts=attempts,
        )
