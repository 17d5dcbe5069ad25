"""How the engine's speed changes with what it is given: one thing grows, the rest stays as in W1."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from transformers import LlamaForCausalLM

from benchmarks.engine import METHODS, measure_engine
from benchmarks.work import W1, Sizes


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowthResult:
    value: int
    samples: int
    samples_per_second: float
    prefill_seconds: float
    decode_seconds: float
    graphs: int


def measure_growth(model: LlamaForCausalLM, axis: str, value: int, sizes: Sizes) -> GrowthResult:
    """shared_context/restart with one value of one axis: a field of Work, or `max_num_seqs`."""
    work, samples, max_num_seqs = W1, sizes.growth_samples, None
    if axis == "max_num_seqs":
        max_num_seqs = value
        samples = min(max(4 * value, 16), 2 * sizes.growth_samples)
    else:
        work = dataclasses.replace(W1, **{axis: value})
    result = measure_engine(model, METHODS[0], work, sizes, samples=samples, max_num_seqs=max_num_seqs)
    return GrowthResult(
        value=value,
        samples=samples,
        samples_per_second=result.samples_per_second,
        prefill_seconds=result.prefill_seconds,
        decode_seconds=result.decode_seconds,
        graphs=result.graphs,
    )
