"""The slow, obvious version of the algorithm, which everything fast is compared with.

One sample at a time, the dense mask written from the definition part by part, the whole sequence
run again for every new token, no cache, no batch, and the unpatched LLaMA of transformers with its
eager attention. Nothing here is shared with the engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from unittest import mock

import torch
from torch import Tensor
from transformers import LlamaForCausalLM
from transformers.models.llama import modeling_llama

from flexray.prompts.prompt import Prompt

ANSWER = "answer"
CONTEXT = "context"
Part = str | int  # "context", a paraphrase's number, or "answer"
Shot = tuple[
    int, int
]  # a few-shot's number and its paraphrase's, from 1; 0: its answer, and all that is plain


@dataclass(frozen=True, slots=True)
class Token:
    """One token of the stream: its id, its RoPE position, and the part it belongs to."""

    id: int
    position: int
    part: Part
    shot: Shot = (0, 0)  # of the context


@dataclass(frozen=True, slots=True)
class OracleAnswer:
    """Generated ids (the stop token included) and, for each, the lead of the best logit."""

    token_ids: list[int]
    gaps: list[float]  # best logit minus second best


def stream(prompt: Prompt, layout: str, positions: str, generated: Collection[int] = ()) -> list[Token]:
    """The sample's stream of tokens, as the definition has it."""
    tokens: list[Token] = []
    context, num_context = context_of(prompt)
    if layout != "full_prompt":
        tokens += [Token(t, i, CONTEXT, shot) for t, i, shot in context]
    for number, paraphrase in enumerate(prompt.segments, start=1):
        if layout == "full_prompt":
            tokens += [Token(t, i, number, shot) for t, i, shot in context]
        tokens += [Token(t, num_context + i, number) for i, t in enumerate(paraphrase)]
    start = num_context + max(len(s) for s in prompt.segments)
    answer = [*prompt.answer_prefix, *generated]
    tokens += [Token(t, start + i, ANSWER) for i, t in enumerate(answer)]
    if positions == "continuous":
        tokens = [Token(t.id, i, t.part, t.shot) for i, t in enumerate(tokens)]
    return tokens


def context_of(prompt: Prompt) -> tuple[list[tuple[int, int, Shot]], int]:
    """Of each token of the context its id, its position where they restart, and its few-shot; and the first
    position behind them."""
    found: list[tuple[int, int, Shot]] = []
    position = number = 0
    index = 0
    while index < len(prompt.context):
        bounds = next((bounds for bounds in prompt.few_shots if bounds[0] == index), None)
        if bounds is None:
            found.append((prompt.context[index], position, (number, 0)))
            index, position = index + 1, position + 1
            continue
        number += 1
        for paraphrase in range(1, len(bounds)):
            ids = prompt.context[bounds[paraphrase - 1] : bounds[paraphrase]]
            found += [(t, position + i, (number, paraphrase)) for i, t in enumerate(ids)]
        position += max(bounds[i + 1] - bounds[i] for i in range(len(bounds) - 1))
        index = bounds[-1]
    return found, position


def num_distinct(prompt: Prompt) -> int:
    """Tokens of the paraphrases that differ from all others in what comes before them or in themselves."""
    return len({s[:end] for s in prompt.segments for end in range(1, len(s) + 1)})


def sees(query: Part, key: Part, joined: int = 0) -> bool:
    """Whether a token of one part sees those of another before it: the query is of the answer, or the key of
    the context, or both are of one segment, or of two that are joined."""
    both_joined = all(isinstance(part, int) and part <= joined for part in (query, key))
    return query in (ANSWER, key) or key == CONTEXT or both_joined


def isolates(query: Shot, key: Shot) -> bool:
    """Whether two tokens of the context are of different paraphrases of one few-shot."""
    return query[0] == key[0] and 0 not in (query[1], key[1]) and query[1] != key[1]


def mask_of(tokens: list[Token], joined: int = 0) -> Tensor:
    """The dense mask, bool [L, L]; the first `joined` paraphrases see each other."""
    seen = _of_pairs(
        tokens,
        lambda query, key: (
            sees(query[0], key[0], joined) and not (query[0] == key[0] and isolates(query[1], key[1]))
        ),
    )
    return seen.tril()


def scales_of(tokens: list[Token], scale: float) -> Tensor:
    """What is added to the scores, [L, L]: `scale` where the answer looks at a paraphrase's segment."""
    return _of_pairs(tokens, lambda query, key: scale * (query[0] == ANSWER and isinstance(key[0], int)))


def _of_pairs(
    tokens: list[Token], value: Callable[[tuple[Part, Shot], tuple[Part, Shot]], bool | float]
) -> Tensor:
    """[L, L]: the value of each query and key, by the parts and few-shots that they belong to."""
    parts = list({(token.part, token.shot): None for token in tokens})
    number = torch.tensor([parts.index((token.part, token.shot)) for token in tokens])
    values = torch.tensor([[value(query, key) for key in parts] for query in parts])
    return values[number][:, number]


@torch.no_grad()
def logits_of(
    model: LlamaForCausalLM, tokens: list[Token], mask: Tensor | None = None, scales: Tensor | None = None
) -> Tensor:
    """Logits [L, V] of the whole stream under its dense mask, by the unpatched model."""
    mask = mask_of(tokens) if mask is None else mask
    scales = torch.zeros(mask.shape) if scales is None else scales
    bias = scales.to(model.dtype).masked_fill(~mask, torch.finfo(model.dtype).min)
    logits: torch.Tensor = model(
        input_ids=torch.tensor([[t.id for t in tokens]], device=model.device),
        position_ids=torch.tensor([[t.position for t in tokens]], device=model.device),
        attention_mask=bias[None, None].to(model.device),
        use_cache=False,
    ).logits[0]
    return logits


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
    cross_attention: bool = False,
    paraphrase_scale: float | str = 0.0,
    max_new_tokens: int,
    stop_ids: Collection[int] = (),
) -> OracleAnswer:
    """Greedy decoding of one sample. The model must be an unpatched one with eager attention."""
    joined = prompt.num_manual if cross_attention else 0
    scale = -math.log(len(prompt.segments)) if paraphrase_scale == "-log N" else float(paraphrase_scale)
    longest = stream(prompt, layout, positions, [0] * max_new_tokens)  # neither depends on the tokens' ids
    mask, scales = mask_of(longest, joined), scales_of(longest, scale)

    def scores(generated: list[int]) -> Tensor:
        tokens = stream(prompt, layout, positions, generated)
        n = len(tokens)
        return logits_of(model, tokens, mask[:n, :n], scales[:n, :n])[-1].float()

    return greedy(model, scores, max_new_tokens, stop_ids)


@torch.no_grad()
def ape_logits(model: LlamaForCausalLM, tokens: list[Token], *, temperature: float, scale: float) -> Tensor:
    """Logits [L, V] of a stream whose answer attends to the paraphrases by adaptive parallel encoding."""
    visible = mask_of(tokens).to(model.device)
    answer = torch.tensor([t.part == ANSWER for t in tokens], device=model.device)
    paraphrases = torch.tensor([isinstance(t.part, int) for t in tokens], device=model.device)

    def part(scores: Tensor, values: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Attention to some keys only, [H, L, D], and log of the sum of the exponentiated scores."""
        scores = scores.masked_fill(~keys, float("-inf"))
        return scores.softmax(-1).nan_to_num() @ values, scores.logsumexp(-1, keepdim=True)

    def attention(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor,
        scaling: float,
        **_others: object,
    ) -> tuple[Tensor, None]:
        keys, values = (x[0].repeat_interleave(query.shape[1] // x.shape[1], 0) for x in (key, value))
        scores = query[0] @ keys.transpose(1, 2) * scaling
        plain, _ = part(scores, values, visible)
        to_paraphrases, log_sum = part(scores / temperature, values, visible & paraphrases)
        to_others, other_log_sum = part(scores, values, visible & ~paraphrases)
        share = torch.sigmoid(scale * temperature * log_sum - other_log_sum)
        merged = share * to_paraphrases + (1 - share) * to_others
        return torch.where(answer[:, None], merged, plain).transpose(0, 1)[None], None

    assert model.config._attn_implementation == "eager"
    with mock.patch.object(modeling_llama, "eager_attention_forward", attention):
        return logits_of(model, tokens)


def ape(
    model: LlamaForCausalLM,
    prompt: Prompt,
    *,
    temperature: float,
    scale: float,
    max_new_tokens: int,
    stop_ids: Collection[int] = (),
) -> OracleAnswer:
    """The answer by adaptive parallel encoding, in shared_context at `restart`."""

    def scores(generated: list[int]) -> Tensor:
        tokens = stream(prompt, "shared_context", "restart", generated)
        return ape_logits(model, tokens, temperature=temperature, scale=scale)[-1].float()

    return greedy(model, scores, max_new_tokens, stop_ids)


def greedy(
    model: LlamaForCausalLM,
    scores: Callable[[list[int]], Tensor],
    max_new_tokens: int,
    stop_ids: Collection[int],
) -> OracleAnswer:
    """The best token of `scores` [V], which are computed from all the tokens generated before, and so on."""
    assert model.config._attn_implementation == "eager"
    generated: list[int] = []
    gaps: list[float] = []
    while len(generated) < max_new_tokens:
        best = scores(generated).topk(2)
        generated.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
        if generated[-1] in stop_ids:
            break
    return OracleAnswer(generated, gaps)


@torch.no_grad()
def logits_alone(
    model: LlamaForCausalLM, prompt: Prompt, paraphrase: int, generated: Collection[int]
) -> Tensor:
    """Logits [V] behind a prompt of one paraphrase only, in float32: by plain causal attention, but for
    few-shots in several paraphrases."""
    if prompt.few_shots:
        one = replace(prompt, segments=(prompt.segments[paraphrase],))
        return logits_of(model, stream(one, "shared_context", "restart", generated))[-1].float()
    ids = [*prompt.context, *prompt.segments[paraphrase], *prompt.answer_prefix, *generated]
    all_logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits
    last: torch.Tensor = all_logits[0, -1].float()
    return last


@torch.no_grad()
def plain_logits(model: LlamaForCausalLM, token_ids: Sequence[int]) -> Tensor:
    """Logits [V] behind a text, by plain causal attention, in float32."""
    last: torch.Tensor = model(
        input_ids=torch.tensor([token_ids], device=model.device), use_cache=False
    ).logits[0, -1]
    return last.float()


def entropy(log_probs: Tensor) -> float:
    """Of a distribution, in nats."""
    shares: list[float] = log_probs.double().exp().tolist()
    return -sum(p * math.log(p) for p in shares if p > 0)


def concat(
    model: LlamaForCausalLM, prompt: Prompt, *, max_new_tokens: int, stop_ids: Collection[int] = ()
) -> OracleAnswer:
    """The answer to all paraphrases in one plain prompt."""
    before = [*prompt.context, *(t for segment in prompt.segments for t in segment), *prompt.answer_prefix]
    return greedy(
        model, lambda generated: plain_logits(model, [*before, *generated]), max_new_tokens, stop_ids
    )


def of_subset(prompt: Prompt, subset: Sequence[int]) -> Prompt:
    """The prompt with these of its paraphrases only, in this order."""
    return replace(prompt, segments=tuple(prompt.segments[i] for i in subset), num_manual=0, confidences=None)


def alone(
    model: LlamaForCausalLM,
    prompt: Prompt,
    paraphrase: int,
    *,
    max_new_tokens: int,
    stop_ids: Collection[int] = (),
) -> OracleAnswer:
    """The answer to one paraphrase, asked alone."""
    return greedy(
        model,
        lambda generated: logits_alone(model, prompt, paraphrase, generated),
        max_new_tokens,
        stop_ids,
    )


def most_confident(prompt: Prompt) -> int:
    """The paraphrase of the highest confidence, the first of equals."""
    assert prompt.confidences is not None
    return prompt.confidences.index(max(prompt.confidences))


def fused(
    model: LlamaForCausalLM,
    prompt: Prompt,
    kind: str,
    *,
    beta: float = 0.25,
    max_new_tokens: int,
    stop_ids: Collection[int] = (),
) -> OracleAnswer:
    """The answer of all paraphrases, each asked alone with the tokens that all have chosen so far.

    Args:
        kind: avg, max, mean_prob, nbce or weighted_avg.
        beta: of nbce.
    """

    def scores(generated: list[int]) -> Tensor:
        each = [logits_alone(model, prompt, i, generated) for i in range(len(prompt.segments))]
        if kind == "avg":
            return torch.stack(each).mean(0)
        if kind == "max":
            return torch.stack([logits.softmax(-1) for logits in each]).amax(0)
        if kind == "mean_prob":
            return torch.stack([logits.softmax(-1) for logits in each]).mean(0)
        if kind == "nbce":
            surest = min((logits.log_softmax(-1) for logits in each), key=entropy)
            without = plain_logits(model, [*prompt.context, *prompt.answer_prefix, *generated])
            return (1 + beta) * surest - beta * without.log_softmax(-1)
        assert kind == "weighted_avg"
        assert prompt.confidences is not None
        weights = prompt.confidences if any(prompt.confidences) else (1.0,) * len(each)
        total = torch.zeros_like(each[0])
        for weight, logits in zip(weights, each, strict=True):
            total += weight / sum(weights) * logits
        return total

    return greedy(model, scores, max_new_tokens, stop_ids)


def draw(logits: Tensor, number: float, *, temperature: float, top_p: float) -> int:
    """The token that a number in [0, 1) draws from the softmax of logits [V]."""
    probs = (logits / temperature).softmax(-1).tolist()
    nucleus: set[int] = set()
    for token in sorted(range(len(probs)), key=lambda token: -probs[token]):
        if sum(probs[t] for t in nucleus) >= top_p:
            break
        nucleus.add(token)
    left = number * sum(probs[t] for t in nucleus)
    for token in sorted(nucleus):
        left -= probs[token]
        if left < 0:
            break
    return token


def sampled(
    model: LlamaForCausalLM,
    prompt: Prompt,
    paraphrase: int,
    numbers: Sequence[float],
    *,
    temperature: float,
    top_p: float,
    stop_ids: Collection[int] = (),
) -> list[int]:
    """An answer to one paraphrase alone whose i-th token is drawn with the i-th number, each in [0, 1)."""
    generated: list[int] = []
    for number in numbers:
        logits = logits_alone(model, prompt, paraphrase, generated).double()
        token = draw(logits, number, temperature=temperature, top_p=top_p)
        generated.append(token)
        if token in stop_ids:
            break
    return generated
