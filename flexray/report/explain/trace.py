"""What a method's answers to one prompt looked at, and what else could have come: steps and shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flexray.engine.generation import Generation
from flexray.methods import Fusion, Method
from flexray.models.llama import Llama
from flexray.prompts.prompt import Prompt
from flexray.report.explain.dense import dense_pass
from flexray.report.explain.explanation import Answer, Branch, Candidate, Segment, Step, Token
from flexray.report.explain.stream import Region, Stream, make_stream

TextOf = Callable[[Sequence[int]], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """Of one method and one prompt."""

    parts: tuple[str, ...]
    segments: tuple[Segment, ...]
    answers: tuple[Answer, ...]


def trace(
    model: Llama,
    method: Method,
    prompt: Prompt,
    generations: Sequence[Generation],
    *,
    top: int,
    text_of: TextOf,
    answer_text: TextOf,
) -> Trace:
    """Run a dense pass over what the engine generated, and say at each step what it would have generated.

    Args:
        model: the engine's.
        generations: the engine's, of this method: one answer, or one for each branch.
        top: candidates of each step.
        text_of: the text of tokens, as it is. answer_text: that of an answer, as it is scored.
    """
    scopes = method.scopes(prompt)
    weights = method.weights(prompt) if method.weights else (1 / len(scopes),) * len(scopes)
    failed = any(generation.error for generation in generations)
    # which branches each answer has: all of them, or the one of its own
    together = method.fusion is not None
    groups = [range(len(scopes))] if together else [range(b, b + 1) for b in range(len(scopes))]
    said = [() if failed else generations[0 if together else b].token_ids for b in range(len(scopes))]
    sampling = method.sampling(prompt) if method.sampling else ()
    stream = make_stream(prompt, method.prefix, scopes, [ids[:-1] for ids in said])
    shared = [region for region in stream.regions if region.branch is None]

    if failed:
        answers = tuple(Answer(generation=g, text="", draw=None, steps=(), branches=()) for g in generations)
    else:
        hidden, shares = dense_pass(model, stream)
        starts = torch.tensor([0, *map(len, stream.queries)]).cumsum(0).tolist()
        answers = tuple(
            Answer(
                generation=generation,
                text=answer_text(generation.token_ids),
                draw=sampling[group[0]] if sampling and sampling[group[0]].temperature else None,
                steps=tuple(
                    _step(
                        _log_scores(
                            model.logits(hidden[[starts[b] + t for b in group]]),
                            method.fusion,
                            [weights[b] for b in group],
                        ),
                        token_id,
                        top,
                        text_of,
                    )
                    for t, token_id in enumerate(generation.token_ids)
                ),
                branches=tuple(
                    Branch(
                        paraphrase=None if (only := scopes[b].paraphrase) is None else only + 1,
                        weight=weights[b] if together else 1.0,
                        segments=_own_segments(stream, b, said[b], text_of),
                        attention=_columns(stream, shares[:, starts[b] : starts[b + 1]], shared, b),
                    )
                    for b in group
                ),
            )
            for group, generation in zip(groups, generations, strict=True)
        )
    return Trace(
        parts=(*(region.name for region in shared), "answer_prefix", "answer"),
        segments=tuple(_segment(stream, region, text_of) for region in shared),
        answers=answers,
    )


@torch.no_grad()
def _log_scores(logits_BV: Tensor, fusion: Fusion | None, weights: Sequence[float]) -> Tensor:
    """Log probabilities [V] of the next token of B branches that choose together (max: not normalised)."""
    logits_BV = logits_BV.float()
    if fusion == "max":
        return logits_BV.log_softmax(-1).amax(0)
    if fusion == "mean":
        return (torch.tensor(weights, device=logits_BV.device) @ logits_BV).log_softmax(-1)
    return logits_BV[0].log_softmax(-1)


def _step(scores_V: Tensor, token_id: int, top: int, text_of: TextOf) -> Step:
    own = scores_V[token_id]
    best = scores_V.topk(min(top, len(scores_V)))
    return Step(
        id=token_id,
        text=text_of([token_id]),
        probability=float(own.exp()),
        rank=int((scores_V > own).sum()) + 1,
        gap=float(best.values[0] - own),
        top=tuple(
            Candidate(id=i, text=text_of([i]), probability=p)
            for i, p in zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
        ),
    )


def _columns(stream: Stream, shares: Tensor, shared: Sequence[Region], branch: int) -> np.ndarray:
    """[layers, T, R] -> [T, layers, P]: the parts that all have, and this branch's answer prefix and
    answer."""
    own = [r for r in stream.regions if r.branch == branch]
    columns = [stream.regions.index(region) for region in (*shared, *own)]
    return shares[:, :, columns].transpose(0, 1).cpu().numpy()


def _segment(stream: Stream, region: Region, text_of: TextOf) -> Segment:
    part = slice(region.start, region.stop)
    return _tokens(region.name, stream.ids[part].tolist(), stream.positions[part].tolist(), text_of)


def _own_segments(
    stream: Stream, branch: int, said: Sequence[int], text_of: TextOf
) -> tuple[Segment, Segment]:
    """A branch's answer prefix and its whole answer; the stream has not the answer's last token, which
    nobody sees."""
    (answer_prefix,) = (r for r in stream.regions if r.branch == branch and r.name == "answer_prefix")
    start = int(stream.positions[answer_prefix.stop - 1]) + 1
    answer = _tokens("answer", said, range(start, start + len(said)), text_of)
    return _segment(stream, answer_prefix, text_of), answer


def _tokens(name: str, ids: Sequence[int], positions: Sequence[int], text_of: TextOf) -> Segment:
    return Segment(
        name=name,
        tokens=tuple(Token(id=i, text=text_of([i]), position=p) for i, p in zip(ids, positions, strict=True)),
    )
