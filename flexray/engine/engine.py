"""The engine: prompts in, generations out. `answer_rows` in flow.py is the whole flow."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from flexray.compat import check_flex
from flexray.config import EngineConfig, GenerationConfig, MethodConfig
from flexray.engine import llama
from flexray.engine.budget import Budget, plan_budget
from flexray.engine.decode_state import DecodeState
from flexray.engine.desk import Desk, Passes, Row, plan_trunks
from flexray.engine.fallback import Ladder, describe, handled_errors, is_out_of_memory
from flexray.engine.flow import Flow
from flexray.engine.kv_pool import KVPool
from flexray.engine.prefill import context_stream
from flexray.engine.stats import EngineStats
from flexray.engine.stopping import StopRule, make_stop_rule
from flexray.masks.block_mask import BlockMaskCache
from flexray.methods import TOGETHER, make_methods
from flexray.types import Backend, Generation, Prompt

MASK_CACHE_BYTES = 256 * 2**20
NO_CONFIDENCES = "the prompt has no confidences to weigh its paraphrases by"

Answers = tuple[Generation, ...]
"""What one method says to one prompt: one answer, or several if its branches answer each for itself."""


class Engine:
    """Answers prompts with one LLaMA, by one or more methods.

    Args:
        model: a LlamaForCausalLM in eval mode, on its device. It is patched in place, and must own its
            config object.
        tokenizer: tells which tokens end an answer.

    The model's device and dtype are the engine's. Nothing here knows of Ray.

    Raises:
        ConfigError: a method that does not exist.
    """

    def __init__(
        self,
        model: LlamaForCausalLM,
        tokenizer: PreTrainedTokenizerBase,
        methods: Sequence[MethodConfig],
        generation: GenerationConfig,
        config: EngineConfig,
    ):
        if config.backend == "flex":
            check_flex(llama.device_of(model).type)
        llama.patch(model)
        self.model, self.config, self.generation = model, config, generation
        self.methods = make_methods(methods)
        self.trunks = plan_trunks(self.methods)
        self.device = llama.device_of(model)
        self.stop_rule: StopRule = make_stop_rule(model, tokenizer, at_newline=generation.stop_at_newline)
        self.stop = self.stop_rule.any.to(self.device)
        self.full_budget: Budget = plan_budget(model, config)
        self.budget = self.full_budget
        self.mask_cache = BlockMaskCache(MASK_CACHE_BYTES)
        self.stats = EngineStats.zero(self.device)
        self.ladder = Ladder(config.backend)
        self._desk: Desk | None = None

    def generate(self, prompts: Sequence[Prompt]) -> list[tuple[Answers, ...]]:
        """Answer prompts, in the order given, each by every method, in their order.

        A backend that fails on the named list of errors hands over to the next, with the same mask; out
        of memory halves the rows at once first. Rows that no backend answers are halved until the bad ones
        are alone; those get one Generation a method with `error` set.

        Raises:
            the backend's own error, with `strict`; any error that is not on the list, always.
        """
        done: dict[tuple[int, int], Answers] = {}
        if self.ladder.tries_full_size_again():
            self.budget = self.full_budget
        by_context: dict[tuple[int, ...], list[int]] = {}
        for i, prompt in enumerate(prompts):
            by_context.setdefault(prompt.context, []).append(i)
        for context, indices in by_context.items():
            for plan in self.trunks:
                rows = [Row(i, prompts[i], plan, self.generation.max_new_tokens) for i in indices]
                # length-sorted: rows prefilled together are alike, and the long ones find the pool empty
                rows.sort(key=lambda row: -row.sample.num_tokens)
                self._answer(context, self._refuse(context, rows, done), done)
        return [tuple(done[i, m] for m in range(len(self.methods))) for i in range(len(prompts))]

    def _refuse(
        self, context: tuple[int, ...], rows: list[Row], done: dict[tuple[int, int], Answers]
    ) -> list[Row]:
        """Fail rows that no pool on this device can hold, estimated before anything is computed, and rows of
        which all methods need confidences that they do not have."""
        good = []
        for row in rows:
            if not row.branches:
                self._fail(row, NO_CONFIDENCES, [], 0, done)
                continue
            needed = self.budget.least_slots(len(context), row.num_slots)
            if needed <= self.budget.max_slots:
                good.append(row)
                continue
            reason = f"needs a KV pool of {needed} slots; the memory holds {self.budget.max_slots}"
            self._fail(row, reason, [], 1, done)
        return good

    def _answer(
        self, context: tuple[int, ...], rows: list[Row], done: dict[tuple[int, int], Answers]
    ) -> None:
        """Answer all rows, or find out which cannot be answered, by halving."""
        parts: list[tuple[list[Row], list[str], int]] = [(rows, [], 0)]
        while parts:
            part, reasons, attempts = parts.pop()
            left, reasons, attempts = self._go_down_the_ladder(context, part, reasons, attempts, done)
            if len(left) > 1:
                middle = len(left) // 2
                parts += [(half, reasons, attempts) for half in (left[middle:], left[:middle])]
            elif left:
                why = "no backend could answer this row: " + "; ".join(reasons)
                self._fail(left[0], why, reasons, attempts, done)

    def _go_down_the_ladder(
        self,
        context: tuple[int, ...],
        rows: list[Row],
        reasons: list[str],
        attempts: int,
        done: dict[tuple[int, int], Answers],
    ) -> tuple[list[Row], list[str], int]:
        """Try one backend after another. Returns the rows that none could answer, why, and the attempts."""
        reasons = [*reasons, *self.ladder.broken.values()]
        failed: dict[Backend, str] = {}
        for backend in self.ladder.backends():
            while rows:
                attempts += 1
                left = dict.fromkeys(rows)
                try:
                    flow = Flow(self.model, self.stop, self.stats, self.mask_cache, self.budget)
                    for row in flow.answer_rows(self._desk_for(context, rows, backend), rows, backend):
                        del left[row]
                        self._finish(row, backend, reasons, attempts, done)
                    self.ladder.worked(backend, instead_of=failed)
                    return [], reasons, attempts
                except BaseException as error:
                    self._drop_desk()  # whatever happened, its state is not to be relied on
                    if not isinstance(error, handled_errors()):
                        raise
                    if self.config.strict:
                        raise
                    rows = list(left)
                    reason = describe(backend, error)
                    if is_out_of_memory(error) and self.budget.max_rows > 1:
                        if self.budget == self.full_budget:
                            self.ladder.full_size_failed()
                        self.budget = self.budget.halved()
                        reason = f"{reason} (rows at once halved to {self.budget.max_rows})"
                        reasons = list(dict.fromkeys([*reasons, reason]))
                        continue
                    failed[backend] = reason
                    reasons = list(dict.fromkeys([*reasons, reason]))
                    break
        return rows, reasons, attempts

    def _desk_for(self, context: tuple[int, ...], rows: list[Row], backend: Backend) -> Desk:
        """The desk with this context in its pool; a new one for another context or too large a row."""
        num_slots = self.budget.pool_slots(len(context), [row.num_slots for row in rows])
        branches = max(self.budget.max_rows, *(len(row.branches) for row in rows))
        desk = self._desk
        if (
            desk is not None
            and desk.context == context
            and desk.pool.num_slots >= num_slots
            and desk.state.max_branches >= branches
        ):
            return desk
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
        state = DecodeState(pool, branches, self.generation.max_new_tokens)
        group = shape.num_attention_heads // num_kv_heads
        desk = Desk(context, pool, state, group, biased=any(m.biased for m in self.methods))
        if context:
            pool.place_context(len(context))
            flow = Flow(self.model, self.stop, self.stats, self.mask_cache, self.budget)
            flow.prefill(context_stream(context, pool), desk, Passes(self.stats, backend))
            self.stats.context_tokens += len(context)
        self._desk = desk
        return desk

    def _drop_desk(self) -> None:
        self._desk = None
        self.mask_cache.clear()

    def _finish(
        self,
        row: Row,
        backend: Backend,
        reasons: list[str],
        attempts: int,
        done: dict[tuple[int, int], Answers],
    ) -> None:
        for number, method in row.plan.methods:
            answers = [b.token_ids for b in row.branches if b.method == number and b.token_ids is not None]
            if not answers:
                done[row.index, number] = self._failure(NO_CONFIDENCES, [], 0)
                continue
            done[row.index, number] = tuple(
                Generation(
                    token_ids=tuple(token_ids),
                    finish_reason=self.stop_rule.reason(token_ids[-1]),
                    backend_requested=self.config.backend,
                    backend_used=backend,
                    fallback_reason="; ".join(reasons),
                    attempts=attempts,
                )
                # branches that choose together say the same
                for token_ids in (answers[:1] if method.choice in TOGETHER else answers)
            )

    def _fail(
        self, row: Row, error: str, reasons: list[str], attempts: int, done: dict[tuple[int, int], Answers]
    ) -> None:
        for number, _ in row.plan.methods:
            done[row.index, number] = self._failure(error, reasons, attempts)

    def _failure(self, error: str, reasons: list[str], attempts: int) -> Answers:
        return (
            Generation(
                finish_reason="error",
                backend_requested=self.config.backend,
                fallback_reason="; ".join(reasons),
                attempts=attempts,
                error=error,
            ),
        )
