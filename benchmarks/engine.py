"""(d) flexray's engine."""

from __future__ import annotations

import resource
import statistics
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import LlamaForCausalLM

from benchmarks.clock import repeated, seconds
from benchmarks.models import NoStops
from benchmarks.work import Sizes, Work
from flexray.config import EngineConfig, GenerationConfig, MethodConfig
from flexray.engine.engine import Engine
from flexray.prompts.prompt import Prompt

Method = tuple[Literal["shared_context", "full_prompt"], Literal["restart", "continuous"]]
METHODS: tuple[Method, ...] = (
    ("shared_context", "restart"),
    ("full_prompt", "restart"),
    ("full_prompt", "continuous"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineResult:
    layout: str
    positions: str
    spread: int
    samples: int
    samples_per_second: float
    seconds: float
    """Median of the repeats."""
    all_seconds: list[float]
    """Of each repeat."""
    prefill_seconds: float
    decode_seconds: float
    other_seconds: float
    """Of `Engine.generate` outside both: laying out, sorting, collecting, and what `yield` hands over."""
    warm_up_seconds: float
    """Compiling included."""
    peak_bytes: int
    """GPU: allocated at most during the repeats. CPU: resident at most since the process began."""
    mask_hits: int
    mask_misses: int
    graphs: int
    """Compiled during the repeats; 0 if the warm-up met every shape."""
    max_num_seqs: int
    pool_slots: int


def make_engine(
    model: LlamaForCausalLM, method: Method, work: Work, max_num_seqs: int | None = None
) -> Engine:
    """An engine that uses flex or fails, and that no token stops."""
    layout, positions = method
    return Engine(
        model,
        NoStops(),  # type: ignore[arg-type]
        [MethodConfig(layout=layout, positions=positions)],
        GenerationConfig(max_new_tokens=work.new_tokens, stop_at_newline=False),
        EngineConfig(strict=True, max_num_seqs=max_num_seqs),
    )


def measure_engine(
    model: LlamaForCausalLM,
    method: Method,
    work: Work,
    sizes: Sizes,
    *,
    samples: int,
    max_num_seqs: int | None = None,
) -> EngineResult:
    """Samples per second of one method; every run has new samples."""
    engine = make_engine(model, method, work, max_num_seqs)
    vocab_size = model.config.vocab_size
    warm = [work.prompts(samples, vocab_size, seed) for seed in range(sizes.warm_ups)]
    warm_up = sum(seconds(lambda p=p: _answer(engine, p, work)) for p in warm)

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    stats, cache = engine.stats, engine.mask_cache
    prefill, decode, graphs = stats.prefill_seconds, stats.decode_seconds, _graphs()
    hits, misses = cache.hits, cache.misses
    # made before the clock starts, as the prompts of a run are
    fresh = iter([work.prompts(samples, vocab_size, sizes.warm_ups + i) for i in range(3)])
    taken = repeated(lambda: _answer(engine, next(fresh), work), at_most=sizes.seconds, repeats=3)
    prefill = (stats.prefill_seconds - prefill) / len(taken)
    decode = (stats.decode_seconds - decode) / len(taken)
    return EngineResult(
        layout=method[0],
        positions=method[1],
        spread=work.spread,
        samples=samples,
        samples_per_second=samples / statistics.median(taken),
        seconds=statistics.median(taken),
        all_seconds=taken,
        prefill_seconds=prefill,
        decode_seconds=decode,
        other_seconds=sum(taken) / len(taken) - prefill - decode,
        warm_up_seconds=warm_up,
        peak_bytes=_peak_bytes(),
        mask_hits=cache.hits - hits,
        mask_misses=cache.misses - misses,
        graphs=_graphs() - graphs,
        max_num_seqs=engine.fallback.sizes.max_num_seqs,
        pool_slots=engine.runner.kv_cache.num_slots,
    )


def _answer(engine: Engine, prompts: list[Prompt], work: Work) -> None:
    for ((generation,),) in engine.generate(prompts):
        assert generation.backend_used == "flex", generation.error
        assert len(generation.token_ids) == work.new_tokens


def _graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
