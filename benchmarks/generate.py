"""(b) `generate` of transformers over separate prompts: batched, with a KV cache, and without any fusion.

Each paraphrase is a prompt of its own, all equally long, so there is no padding. A vote would come after.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM

from benchmarks.clock import median_seconds
from benchmarks.models import use_attention
from benchmarks.work import Sizes, Work


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateResult:
    samples_per_second: float
    """Prompts per second, divided by the paraphrases of a sample."""
    seconds: float
    prompts: int


@torch.no_grad()
def measure_generate(model: LlamaForCausalLM, work: Work, sizes: Sizes) -> GenerateResult:
    """Samples per second of one batch."""
    use_attention(model, "sdpa")
    samples = work.prompts(-(-sizes.prompts // work.paraphrases), model.config.vocab_size, seed=0)
    rows = [[*p.context, *segment, *p.answer_prefix] for p in samples for segment in p.segments][
        : sizes.prompts
    ]
    ids_BT = torch.tensor(rows, device=model.device)
    ones_BT = torch.ones_like(ids_BT)

    def run() -> None:
        out_BT = model.generate(
            ids_BT, attention_mask=ones_BT, max_new_tokens=work.new_tokens, do_sample=False
        )
        assert out_BT.shape[1] == ids_BT.shape[1] + work.new_tokens

    seconds = median_seconds(run, at_most=sizes.seconds)
    return GenerateResult(
        samples_per_second=len(rows) / work.paraphrases / seconds, seconds=seconds, prompts=len(rows)
    )
