"""(a) The script that users have: batch 1, no KV cache, the whole sequence again for each token.

`full_prompt` layout: each paraphrase is a whole prompt, isolated from the others, and the answer sees all.
Three variants of its attention; the ratios that are reported use the fastest. The logits of the last token
only, which is kinder than the script.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface, LlamaForCausalLM

from benchmarks.clock import repeated, seconds
from benchmarks.models import use_attention
from benchmarks.work import Sizes, Work
from flexray.prompts.prompt import Prompt

ANSWER = -1
SCRIPT_FLEX = "script_flex"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScriptResult:
    variant: str
    samples_per_second: float
    seconds: float
    """Of one sample; scaled up if fewer than all its tokens were measured."""
    tokens_measured: int
    tokens: int


def _visible(segments_L: Tensor) -> Callable[..., Tensor]:
    def visible(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return (kv <= q) & ((segments_L[q] == ANSWER) | (segments_L[q] == segments_L[kv]))

    return visible


def _block_mask(segments_L: Tensor) -> BlockMask:
    L = len(segments_L)
    return create_block_mask(_visible(segments_L), None, None, L, L, device=str(segments_L.device))


def script_flex(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    segments_L: Tensor,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """The script's attention: the mask rebuilt in every layer, FlexAttention not compiled."""
    block_mask = _block_mask(segments_L)
    out = flex_attention(query, key, value, block_mask=block_mask, scale=scaling, enable_gqa=True)
    return out.transpose(1, 2).contiguous(), None


def _per_layer(segments_L: Tensor) -> dict[str, object]:
    return {"segments_L": segments_L}


def _stock_flex(segments_L: Tensor) -> dict[str, object]:
    return {"attention_mask": _block_mask(segments_L)}


def _dense(segments_L: Tensor) -> dict[str, object]:
    index = torch.arange(len(segments_L), device=segments_L.device)
    mask = _visible(segments_L)(index, index, index[:, None], index[None, :])
    return {"attention_mask": mask[None, None]}


VARIANTS: dict[str, tuple[str, Callable[[Tensor], dict[str, object]]]] = {
    "flex uncompiled, a mask each layer": (SCRIPT_FLEX, _per_layer),
    "transformers' compiled flex, a mask each step": ("flex_attention", _stock_flex),
    "SDPA, a dense mask each step": ("sdpa", _dense),
}
GPU_ONLY = "transformers' compiled flex, a mask each step"  # on a CPU its dynamic shapes do not compile


def measure_script(
    model: LlamaForCausalLM, work: Work, sizes: Sizes, variant: str, *, quick: bool
) -> ScriptResult:
    """Samples per second of one variant."""
    AttentionInterface.register(SCRIPT_FLEX, script_flex)
    attention, mask_of = VARIANTS[variant]
    use_attention(model, attention)
    prompt = work.prompts(1, model.config.vocab_size, seed=0)[0]
    # flexray makes dynamo's recompile limit an error; the script never did
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=False):
        tokens = work.new_tokens
        if attention == "flex_attention":
            _generate(model, prompt, mask_of, 0, tokens)  # all lengths compiled
        for step in range(1 if quick else 3):
            _generate(model, prompt, mask_of, step, 1)
        one = seconds(lambda: _generate(model, prompt, mask_of, tokens // 2, 1))
        measured = min(tokens, max(2, int(sizes.script_seconds / one)))
        first = (tokens - measured) // 2  # the middle ones: their lengths are the average
        taken = repeated(
            lambda: _generate(model, prompt, mask_of, first, measured), at_most=sizes.script_seconds
        )
    sample = statistics.median(taken) * tokens / measured
    return ScriptResult(
        variant=variant,
        samples_per_second=1 / sample,
        seconds=sample,
        tokens_measured=measured,
        tokens=tokens,
    )


@torch.no_grad()
def _generate(
    model: LlamaForCausalLM,
    prompt: Prompt,
    mask_of: Callable[[Tensor], dict[str, object]],
    first: int,
    count: int,
) -> list[int]:
    """Tokens `first` to `first + count` of the answer, those before being taken as zeros."""
    ids: list[int] = []
    positions: list[int] = []
    segments: list[int] = []
    for number, paraphrase in enumerate(prompt.segments, start=1):
        whole = [*prompt.context, *paraphrase]
        ids += whole
        positions += range(len(whole))
        segments += [number] * len(whole)
    start = max(positions) + 1
    answer = [*prompt.answer_prefix, *[0] * first]
    for _ in range(count):
        stream = torch.tensor([[*ids, *answer]], device=model.device)
        places = torch.tensor([[*positions, *range(start, start + len(answer))]], device=model.device)
        segments_L = torch.tensor([*segments, *[ANSWER] * len(answer)], device=model.device)
        out = model(stream, position_ids=places, use_cache=False, logits_to_keep=1, **mask_of(segments_L))
        answer.append(int(out.logits[0, -1].argmax()))
    return answer[-count:]
