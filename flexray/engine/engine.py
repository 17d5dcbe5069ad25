"""The engine: prompts in, generations out. `_attempt` is the whole loop."""

from __future__ import annotations

import itertools
import operator
from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Listed

from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from flexray.config import Backend, EngineConfig, GenerationConfig, MethodConfig
from flexray.engine.candidates import best_of_each, too_many
from flexray.engine.determinism import describe_rounding, set_rounding
from flexray.engine.fallback import BackendFallback
from flexray.engine.generation import Generation
from flexray.engine.kv_cache import context_size
from flexray.engine.model_runner import ModelRunner
from flexray.engine.request import Request, Sequence, group_by_prefix, seen_by
from flexray.engine.sampler import Sampler
from flexray.engine.scheduler import Scheduler
from flexray.engine.scheduler_config import plan_scheduler
from flexray.engine.stats import EngineStats
from flexray.engine.stopping_criteria import StoppingCriteria, make_stopping_criteria
from flexray.masks.block_masks import BlockMaskCache
from flexray.masks.shared_context import SharedContext, group_by_context
from flexray.masks.visibility import Bias
from flexray.methods import Method, make_methods
from flexray.models import llama
from flexray.models.all_reduce import RankGroup
from flexray.models.compat import check_flex
from flexray.models.decoder_layer import Quantization
from flexray.prompts.prompt import Prompt

NO_CONFIDENCES = "the prompt has no confidences to weigh its paraphrases by"

Answers = tuple[Generation, ...]
"""What one method says to one prompt: one answer, or several if its sequences answer each for itself."""


class Engine:
    """Answers prompts with one LLaMA, by one or more methods.

    Args:
        model: a LlamaForCausalLM in eval mode, on its device; see `flexray.models.llama.patch`.
        tokenizer: tells which tokens end an answer.
        quantization: "fp8": linear layers in FP8.
        group: the ranks that hold the model together, each with an engine that is asked the same; None: one.
            A fault on one rank cannot be told from a slow rank, so each one is raised, as with `strict`.

    The model's device and dtype are the engine's. Nothing here knows of Ray.

    Raises:
        ConfigError: a method that does not exist.
    """

    def __init__(
        self,
        model: LlamaForCausalLM,
        tokenizer: PreTrainedTokenizerBase,
        methods: Listed[MethodConfig],
        generation: GenerationConfig,
        config: EngineConfig,
        quantization: Quantization | None = None,
        group: RankGroup | None = None,
    ):
        if config.backend == "flex":
            check_flex(model.device.type)
        set_rounding(model.device)
        self.model, self.config, self.generation = llama.patch(model, quantization, group), config, generation
        self.device = self.model.device
        self.methods = make_methods(methods)
        self.groups = group_by_prefix(self.methods, share_prefixes=config.share_prefixes)
        self.stopping: StoppingCriteria = make_stopping_criteria(
            model, tokenizer, at_newline=generation.stop_at_newline, texts=generation.stop
        )
        self.stats = EngineStats.zero(self.device)
        self.runner = ModelRunner(
            self.model,
            self.stats,
            self.stopping.any.to(self.device),
            generation.max_new_tokens,
            bias=_together(group.bias for group in self.groups),
            logprobs=generation.num_logprobs,
            forced=generation.candidates is not None,
            find_end=self.stopping.find_end if generation.stop else None,
            subsets=any(group.prefix.apart for group in self.groups),
        )
        self._sampler: Sampler | None = None
        strict = config.strict or group is not None
        self.fallback = BackendFallback(config.backend, plan_scheduler(self.model, config), strict=strict)

    @property
    def mask_cache(self) -> BlockMaskCache:
        """The compiled BlockMasks, with counts of hits and misses."""
        return self.runner.masks

    @property
    def rounding(self) -> dict[str, str | int]:
        """What the bits of answers rest on beside row, model and code; {} if not deterministic."""
        if not self.config.deterministic:
            return {}
        sizes, shape = self.fallback.full_sizes, self.model.shape
        splits = sizes.key_splits(sizes.max_num_seqs, shape.num_kv_heads)
        return describe_rounding(
            self.device,
            sizes,
            share_prefixes=self.config.share_prefixes,
            ranks=shape.group.ranks if shape.group is not None else 1,
            key_splits=splits if self.config.backend == "flex" else 1,
        )

    def reset(self) -> None:
        """Free what lies on the device beside the weights; the next call makes it anew."""
        self._sampler = None
        self.runner.reset()

    def generate(self, prompts: Listed[Prompt]) -> list[tuple[Answers, ...]]:
        """Answer prompts, in the order given, each by every method, in their order; see `stream`."""
        found = dict(self.stream(prompts))
        return [found[index] for index in range(len(prompts))]

    def stream(self, prompts: Listed[Prompt]) -> Iterator[tuple[int, tuple[Answers, ...]]]:
        """Answer prompts; yields the number of each prompt, and what every method says to it, as soon as
        all have answered. A prompt that no backend answers gets one Generation a method with `error` set.

        Raises:
            the backend's own error, with `strict`; any error that `BackendFallback` does not know, always.
        """
        self.fallback.start_call()
        # all groups have the same context, but for its positions
        by_context = group_by_context(prompts, with_head=self.groups[0].with_head)
        missing = Counter({index: len(self.groups) for index in range(len(prompts))})
        answers: dict[int, dict[int, Answers]] = {index: {} for index in range(len(prompts))}
        new = self.generation.max_new_tokens
        for context, indices in by_context.items():
            # few-shots' paraphrases stand elsewhere at continuous positions: the context is computed again
            for group in sorted(self.groups, key=lambda group: group.prefix.continuous):
                requests = [Request(index, prompts[index], group, new) for index in indices]
                # length-sorted: requests prefilled together are alike, and the long ones find the cache empty
                requests.sort(key=operator.attrgetter("most_slots"), reverse=True)
                for request in self._answer(context, requests):
                    index = request.index
                    answers[index] |= self._answers(request)
                    missing[index] -= 1
                    if not missing[index]:
                        by_method = answers.pop(index)
                        yield index, tuple(by_method[number] for number in range(len(self.methods)))

    def _answer(self, context: SharedContext, requests: list[Request]) -> Iterator[Request]:
        """Run the requests that can be run; yields all of them, each when its outcome is known."""
        sizes, good = self.fallback.sizes, []
        room = sizes.room(context_size(context))
        for request in requests:
            request.error = too_many(request.num_sequences) if request.num_sequences else NO_CONFIDENCES
            if request.error:
                yield request
                continue
            if request.most_slots <= room or request.num_slots <= room:
                good.append(request)
                continue
            needed = sizes.least_slots(context_size(context), request.num_slots)
            request.attempts = 1
            request.error = f"needs a KV cache of {needed} slots; the memory holds {sizes.max_num_slots}"
            yield request
        if good:
            yield from self.fallback.run(good, self._attempt)

    def _attempt(self, requests: list[Request], backend: Backend, alone: bool) -> Iterator[Request]:
        """Run requests by one backend; yields each as it finishes."""
        try:
            for request in requests:
                request.restart()
            runner, sizes = self.runner, self.fallback.sizes
            runner.prepare(requests[0].context, requests, backend, sizes)
            scheduler = Scheduler(requests, sizes, runner.kv_cache, runner.table, self.stats, alone=alone)
            sampler = self._sampler
            if sampler is None or sampler.table is not runner.table:  # else its graphs serve again
                sampler = self._sampler = Sampler(runner.table, self.generation)
            while scheduler.has_work():
                batch = scheduler.schedule()
                logits = runner.run(batch)
                tokens = sampler(logits, batch)
                yield from scheduler.postprocess(batch, tokens)
            yield from scheduler.take_finished()
            runner.check_backend()
        except BaseException:
            self.reset()  # whatever happened, the state on the device is not to be relied on
            raise

    def _answers(self, request: Request) -> dict[int, Answers]:
        """What each method of a request says."""
        return {number: self._answers_of(request, number, method) for number, method in request.group.methods}

    def _answers_of(self, request: Request, number: int, method: Method) -> Answers:
        answers = request.answers_of(number)
        if request.error:
            return (self._failure(request, request.error),)
        if not answers:
            return (self._failure(None, NO_CONFIDENCES),)
        for sequence in itertools.chain(*answers):
            if not sequence.is_finite:
                return (self._failure(request, self._not_finite(len(sequence.token_ids or ()))),)
        said = [self._generation(request, together, method) for together in answers]
        if request.prompt.candidates:
            return tuple(best_of_each(said, request.num_candidates, self.generation))
        return tuple(said)

    def _generation(self, request: Request, together: Listed[Sequence], method: Method) -> Generation:
        """The answer of sequences that choose together, and so say the same."""
        first = together[0]
        return Generation(
            token_ids=first.token_ids or (),
            logprobs=first.logprobs,
            finish_reason="candidate" if first.forced else self.stopping.reason(first.token_ids or ()),
            backend_requested=self.config.backend,
            backend_used=request.backend or "",
            fallback_reason="; ".join(request.reasons),
            attempts=request.attempts,
            subset=seen_by(together) if method.records_subsets else (),
        )

    def _failure(self, request: Request | None, error: str) -> Generation:
        return Generation(
            finish_reason="error",
            backend_requested=self.config.backend,
            fallback_reason="; ".join(request.reasons) if request else "",
            attempts=request.attempts if request else 0,
            error=error,
        )

    def _not_finite(self, number: int) -> str:
        dtype = str(self.model.dtype).removeprefix("torch.")
        return (
            f"the logits of generated token {number} are not finite (NaN or infinity) in {dtype}: the "
            "model's numbers overflow, or its weights are damaged. Set model.dtype to float32 or bfloat16, "
            "or copy the checkpoint again."
        )


def _together(biases: Iterable[Bias | None]) -> Bias | None:
    """One for all groups, as they share graphs."""
    found = set(biases)
    return "all" if "all" in found else "copies" if "copies" in found else None
