"""What the answers to one prompt attend to, and the most likely tokens at each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flexray.engine.generation import Generation
from flexray.engine.sampler import OF_PROBABILITIES, LogitsFuser
from flexray.masks.stream import Segment, Stream, make_stream
from flexray.methods import Fusion, Method
from flexray.models.llama import Llama
from flexray.prompts.prompt import Prompt
from flexray.report.explain.dense import dense_pass
from flexray.report.explain.explanation import (
    Candidate,
    ExplainedAnswer,
    SegmentTokens,
    SequenceAttention,
    Step,
    Token,
)

TextOf = Callable[[int], str]


def trace(
    model: Llama,
    method: Method,
    prompt: Prompt,
    generations: Sequence[Generation],
    *,
    top: int,
    text_of: TextOf,
    texts: Sequence[str],
) -> tuple[tuple[SegmentTokens, ...], tuple[ExplainedAnswer, ...]]:
    """Run a dense pass over what the engine generated, and rank each token among all others.

    Args:
        model: the engine's.
        generations: the engine's, of this method: one answer, or one for each sequence.
        top: candidates of each step.
        text_of: the text of a token, as it is.
        texts: of the generations, as they are scored.

    Returns:
        The segments that all sequences share, in stream order; and the answers.
    """
    scopes = method.scopes(prompt)
    answer_number = method.answer_numbers(prompt, len(scopes))  # of each sequence
    weights = method.weights_of(prompt, answer_number)
    sampling = method.sampling(prompt) if method.sampling else None
    failed = any(generation.error for generation in generations)
    said = [() if failed else generations[answer].token_ids for answer in answer_number]
    stream = make_stream(prompt, method.prefix, scopes, said)
    shared = tuple(_tokens(stream, s, text_of) for s in stream.segments if s.sequence is None)
    if failed:
        return shared, tuple(
            ExplainedAnswer(generation=g, text="", draw=None, steps=(), sequences=()) for g in generations
        )

    passed = dense_pass(model, stream)

    def attention_of(sequence: int) -> SequenceAttention:
        columns = [i for i, s in enumerate(stream.segments) if s.sequence in (None, sequence)]
        answer_prefix, answer = (s for s in stream.segments if s.sequence == sequence)
        paraphrase = -1 if scopes[sequence].subset == () else scopes[sequence].paraphrase
        return SequenceAttention(
            paraphrase=None if paraphrase is None else paraphrase + 1,
            weight=weights[sequence],
            segments=(_tokens(stream, answer_prefix, text_of), _tokens(stream, answer, text_of)),
            attention_by_layer=passed[sequence][1][:, :, columns].transpose(0, 1).cpu().numpy(),
        )

    def answer_of(sequences: Sequence[int], generation: Generation, text: str) -> ExplainedAnswer:
        first = sequences[0]
        steps = []
        for t, token_id in enumerate(generation.token_ids):
            logits = model.logits(torch.stack([passed[s][0][t] for s in sequences]))
            scores = _log_scores(logits, method.fusion, [weights[s] for s in sequences])
            steps.append(_step(scores, token_id, top, text_of))
        return ExplainedAnswer(
            generation=generation,
            text=text,
            draw=sampling[first] if sampling and sampling[first].temperature else None,
            steps=tuple(steps),
            sequences=tuple(attention_of(s) for s in sequences),
        )

    groups: dict[int, list[int]] = {}
    for sequence, answer in enumerate(answer_number):
        groups.setdefault(answer, []).append(sequence)
    return shared, tuple(answer_of(*pair) for pair in zip(groups.values(), generations, texts, strict=True))


@torch.no_grad()
def _log_scores(logits_BV: Tensor, fusion: Fusion | None, weights: Sequence[float]) -> Tensor:
    """Log probabilities [V] of the next token of B sequences that are fused (max: not normalised)."""
    if fusion is None:
        return logits_BV[0].float().log_softmax(-1)
    scores = LogitsFuser(fusion, [0] * len(weights), weights, logits_BV.device).scores(logits_BV)[0]
    return scores.log() if fusion in OF_PROBABILITIES else scores.log_softmax(-1)


def _step(scores_V: Tensor, token_id: int, top: int, text_of: TextOf) -> Step:
    own = scores_V[token_id]
    best = scores_V.topk(min(top, len(scores_V)))
    return Step(
        id=token_id,
        text=text_of(token_id),
        probability=float(own.exp()),
        rank=int((scores_V > own).sum()) + 1,
        gap=float(best.values[0] - own),
        top=tuple(
            Candidate(id=i, text=text_of(i), probability=p)
            for i, p in zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
        ),
    )


def _tokens(stream: Stream, segment: Segment, text_of: TextOf) -> SegmentTokens:
    part = slice(segment.start, segment.stop)
    pairs = zip(stream.token_ids[part].tolist(), stream.positions[part].tolist(), strict=True)
    return SegmentTokens(
        name=segment.name, tokens=tuple(Token(id=i, text=text_of(i), position=p) for i, p in pairs)
    )
