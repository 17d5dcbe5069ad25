"""The engine: prompts in, generations out. `_run` is the whole flow: admit, decode, retire."""

from __future__ import annotations

import dataclasses
import functools
import itertools
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
from flexray.engine.decode import DecodeBatch, DecodeState, decode
from flexray.engine.fallback import describe, fallback_errors, is_out_of_memory, next_backends
from flexray.engine.kv_pool import KVPool, Placement
from flexray.engine.prefill import Stream, context_stream, copy_context, prefill, rows_stream
from flexray.engine.stats import EngineStats
from flexray.engine.stopping import StopRule, make_stop_rule
from flexray.masks.block_mask import BlockMaskCache
from flexray.masks.layout import SampleLayout, lay_out
from flexray.types import Backend, Generation, Prompt

MASK_CACHE_BYTES = 256 * 2**20


@dataclass
class _Row:
    """A prompt on its way."""

    index: int  # in the caller's list
    prompt: Prompt
    method: MethodConfig
    placement: Placement | None = None
    steps_left: int = 0  # decode steps until it is done at the latest

    @functools.cached_property
    def sample(self) -> SampleLayout:
        return lay_out(self.prompt, self.method.layout, self.method.positions)

    @property
    def num_tokens(self) -> int:
        """Tokens to prefill."""
        return sum(map(len, self.prompt.segments)) + len(self.prompt.cue)

    @property
    def placed(self) -> Placement:
        assert self.placement is not None
        return self.placement


@dataclass(slots=True)
class _Desk:
    """What rows are worked on with: the pool, with one context in it, and the decoding state over it."""

    context: tuple[int, ...]
    pool: KVPool
    state: DecodeState
    group: int  # query heads for each key/value head
    biased: bool
    batches: dict[tuple[Backend, int], DecodeBatch] = dataclasses.field(default_factory=dict)

    def batch(self, size: int, backend: Backend) -> DecodeBatch:
        """The batch of that size."""
        key = (backend, size)
        if key not in self.batches:
            self.batches[key] = DecodeBatch(
                size, self.state, self.pool, backend=backend, group=self.group, biased=self.biased
            )
        return self.batches[key]


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
        self._desk: _Desk | None = None

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
            by_context.setdefault(prompt.context, []).append(_Row(i, prompt, self.method))
        for context, rows in by_context.items():
            # length-sorted: rows prefilled together are alike, and the long ones find the pool empty
            rows.sort(key=lambda r: -r.num_tokens)
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
        desk = self._desk_for(context, rows, backend)
        passes = _Passes(self.stats, backend)
        waiting, active = deque(rows), list[_Row]()
        try:
            while waiting or active:
                self._admit(waiting, active, desk, passes)
                self._decode(active, desk, passes)
                for row in itertools.islice(waiting, self.budget.max_rows):
                    _ = row.sample  # lay out the next ones while the device is at work
                yield from self._retire(active, desk)
        finally:
            desk.pool.release([row.placed for row in active])
        passes.check(num_layers=len(desk.pool.keys))

    def _admit(self, waiting: deque[_Row], active: list[_Row], desk: _Desk, passes: _Passes) -> None:
        """Place and prefill waiting rows, if enough of them have room to make a pass worth while."""
        room = min(len(waiting), self.budget.max_rows - len(active))
        if not room or (active and room < min(len(waiting), self.budget.max_rows // 4)):
            return
        pool, state = desk.pool, desk.state
        samples = [row.sample for row in itertools.islice(waiting, room)]
        placements = pool.place(samples, state.max_new_tokens)
        if not placements:
            assert active, "the pool holds the largest row: see _desk_for"
            return
        start = time.perf_counter()
        samples = samples[: len(placements)]
        for placement in placements:
            row = waiting.popleft()
            row.placement, row.steps_left = placement, state.max_new_tokens - 1
            active.append(row)
        copy_context(self.model, pool, samples, placements)
        last_BD = self._prefill(rows_stream(samples, placements, pool), pool, passes)
        first_tokens = llama.logits(self.model, last_BD).argmax(-1)
        state.admit(samples, placements, pool.context_lists, first_tokens, self.stop)
        self.stats.prefill_tokens += sum(s.num_tokens for s in samples)
        self.stats.prefill_seconds += time.perf_counter() - start

    def _decode(self, active: list[_Row], desk: _Desk, passes: _Passes) -> None:
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

    def _retire(self, active: list[_Row], desk: _Desk) -> Iterator[tuple[_Row, list[int]]]:
        """Take out the rows that are done."""
        start = time.perf_counter()
        state = desk.state
        places = torch.tensor([row.placed.row for row in active], device=self.device)
        done, produced = torch.stack([state.done[places].long(), state.produced[places]]).tolist()
        self.stats.decode_seconds += time.perf_counter() - start  # the device's: this is where the host waits
        if not any(done):
            return
        output = state.output[places].tolist()
        finished = [(row, output[i][: produced[i]]) for i, row in enumerate(active) if done[i]]
        active[:] = [row for i, row in enumerate(active) if not done[i]]
        desk.pool.release([row.placed for row, _ in finished])
        for row, token_ids in finished:
            self.stats.generated_tokens += len(token_ids)
            yield row, token_ids

    def _prefill(self, stream: Stream, pool: KVPool, passes: _Passes) -> Tensor:
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
            ends.append(hidden[part.row_ends().to(self.device)])
        return torch.cat(ends)

    def _desk_for(self, context: tuple[int, ...], rows: list[_Row], backend: Backend) -> _Desk:
        """The desk with this context in its pool; made anew when the context is another or a row too large."""
        copied = self.method.layout == "full_prompt" and self.method.positions == "continuous"
        needs = [
            copied * len(r.prompt.segments) * len(context) + r.num_tokens + self.method.max_new_tokens for r in rows
        ]
        num_slots = self.budget.pool_slots(len(context), needs)
        if self._desk is not None and self._desk.context == context and self._desk.pool.num_slots >= num_slots:
            return self._desk
        self._drop_desk()
        shape = self.model.config
        pool = KVPool(
            num_layers=shape.num_hidden_layers,
            num_kv_heads=shape.num_key_value_heads,
            head_dim=self.model.model.layers[0].self_attn.head_dim,
            num_slots=num_slots,
            max_rows=self.budget.max_rows,
            dtype=self.model.dtype,
            device=self.device,
        )
        if context:
            pool.place_context(len(context))
            self._prefill(context_stream(context, pool), pool, _Passes(self.stats, backend))
            self.stats.context_tokens += len(context)
        group = shape.num_attention_heads // shape.num_key_value_heads
        self._desk = _Desk(context, pool, DecodeState(pool, self.method.max_new_tokens), group, self._biased)
        return self._desk

    def _drop_desk(self) -> None:
        self._desk = None
        self.mask_cache.clear()

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
