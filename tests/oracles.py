"""The slow, obvious version of the algorithm, which everything fast is compared with.

One sample at a time, the dense mask written from the definition token by token, the whole sequence
run again for every new token, no cache, no batch, and the unpatched LLaMA of transformers with its
eager attention. Nothing here is shared with the engine.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from flexray.types import Prompt

ANSWER = "answer"
CONTEXT = "context"


@dataclass(frozen=True, slots=True)
class Token:
    """One token of the stream: its id, its RoPE position, and the part it belongs to."""

    id: int
    position: int
    part: str | int  # "context", a paraphrase's number, or "answer"


@dataclass(frozen=True, slots=True)
class OracleAnswer:
    """Generated ids (the stop token included) and, for each, the lead of the best logit."""

    token_ids: list[int]
    gaps: list[float]  # best logit minus second best


def stream(prompt: Prompt, layout: str, positions: str, generated: Collection[int] = ()) -> list[Token]:
    """The sample's stream of tokens, as the definition has it."""
    tokens: list[Token] = []
    num_context = len(prompt.context)
    if layout == "shared_context":
        tokens += [Token(t, i, CONTEXT) for i, t in enumerate(prompt.context)]
    for number, paraphrase in enumerate(prompt.segments, start=1):
        if layout == "full_prompt":
            tokens += [Token(t, i, number) for i, t in enumerate(prompt.context)]
        tokens += [Token(t, num_context + i, number) for i, t in enumerate(paraphrase)]
    start = num_context + max(len(s) for s in prompt.segments)
    answer = [*prompt.cue, *generated]
    tokens += [Token(t, start + i, ANSWER) for i, t in enumerate(answer)]
    if positions == "continuous":
        tokens = [Token(t.id, i, t.part) for i, t in enumerate(tokens)]
    return tokens


def sees(query: Token, q: int, key: Token, k: int) -> bool:
    """The mask: `k <= q` and (answer query, or context key, or one segment)."""
    return k <= q and (query.part == ANSWER or key.part == CONTEXT or query.part == key.part)


def mask_of(tokens: list[Token]) -> Tensor:
    """The dense mask, bool [L, L]."""
    return torch.tensor([[sees(a, q, b, k) for k, b in enumerate(tokens)] for q, a in enumerate(tokens)])


@torch.no_grad()
def logits_of(model: LlamaForCausalLM, tokens: list[Token], mask: Tensor | None = None) -> Tensor:
    """Logits [L, V] of the whole stream under its dense mask, by the unpatched model."""
    mask = mask_of(tokens) if mask is None else mask
    bias = torch.zeros(mask.shape, dtype=model.dtype).masked_fill(~mask, torch.finfo(model.dtype).min)
    return model(
        input_ids=torch.tensor([[t.id for t in tokens]], device=model.device),
        position_ids=torch.tensor([[t.position for t in tokens]], device=model.device),
        attention_mask=bias[None, None].to(model.device),
        use_cache=False,
    ).logits[0]


def greedy_along(
    model: LlamaForCausalLM, prompt: Prompt, token_ids: Sequence[int], *, layout: str, positions: str
) -> OracleAnswer:
    """What greedy decoding generates at each step, given that it has generated `token_ids` so far.

    One run of the whole sequence instead of one for each token: the mask is causal, so the logits of an
    answer token do not depend on the tokens behind it. Equal to `token_ids` if and only if `answer` gives
    `token_ids` too.
    """
    tokens = stream(prompt, layout, positions, token_ids[:-1])
    best = logits_of(model, tokens)[-len(token_ids) :].float().topk(2)
    return OracleAnswer(best.indices[:, 0].tolist(), (best.values[:, 0] - best.values[:, 1]).tolist())


def answer(
    model: LlamaForCausalLM,
    prompt: Prompt,
    *,
    layout: str = "shared_context",
    positions: str = "restart",
    max_new_tokens: int,
    stop_ids: Collection[int] = (),
) -> OracleAnswer:
    """Greedy decoding of one sample. The model must be an unpatched one with eager attention."""
    assert model.config._attn_implementation == "eager"
    generated: list[int] = []
    gaps: list[float] = []
    while len(generated) < max_new_tokens:
        logits = logits_of(model, stream(prompt, layout, positions, generated))[-1].float()
        best = logits.topk(2)
        generated.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
        if generated[-1] in stop_ids:
            break
    return OracleAnswer(generated, gaps)
