"""Before anything is timed: does the engine answer as the oracle does?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM

from benchmarks.engine import Method, make_engine
from benchmarks.models import use_attention
from benchmarks.work import Work
from tests import oracles

SAMPLES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    layout: str
    positions: str
    tokens: int
    equal: int
    """Tokens that the oracle chooses too, after the same tokens before."""
    widest_gap: float
    """Of the others: by how much the oracle's best logit leads its second, at most."""
    must_be_equal: bool


def check(model: LlamaForCausalLM, method: Method, work: Work) -> CheckResult:
    """Compare a few answers with tests.oracles. In float32 all tokens must be equal; in bfloat16 two kernels
    may round near-ties apart.

    Raises:
        RuntimeError: a float32 token differs. A figure for a wrong answer would mean nothing.
    """
    layout, positions = method
    prompts = work.prompts(SAMPLES, model.config.vocab_size, seed=99)
    answers = [g.token_ids for ((g,),) in make_engine(model, method, work).generate(prompts)]
    use_attention(model, "eager")
    equal, gaps = 0, [0.0]
    for prompt, token_ids in zip(prompts, answers, strict=True):
        oracle = oracles.greedy_along(model, prompt, token_ids, layout=layout, positions=positions)
        for own, other, gap in zip(token_ids, oracle.token_ids, oracle.gaps, strict=True):
            equal += own == other
            gaps += [gap] if own != other else []
    tokens = SAMPLES * work.new_tokens
    exact = model.dtype == torch.float32
    if exact and equal < tokens:
        raise RuntimeError(f"{layout}/{positions}: {tokens - equal} of {tokens} tokens are not the oracle's")
    return CheckResult(
        layout=layout,
        positions=positions,
        tokens=tokens,
        equal=equal,
        widest_gap=max(gaps),
        must_be_equal=exact,
    )
