"""Where each token of a sample stands: segment, position and order.

One sample is one stream of token ids:

    shared_context   [context][P1][P2]..[PN][cue][generated..]
    full_prompt      [context][P1][context][P2]..[context][PN][cue][generated..]

The engine computes the context once per run, so a sample's own tokens are its paraphrases and its
cue. In `full_prompt` the context's copies are never computed again:

* `restart`: all copies stand at the same positions, so they are one copy whose attention scores get
  `+log N` for answer-region queries (softmax over N equal scores = one score plus log N);
* `continuous`: a copy that starts at position `o` has the context's values, and its keys rotated by
  `o` (RoPE is relative, Su et al. 2021, arXiv:2104.09864: R(p + o) = R(o) R(p), and the hidden states
  of an isolated causal segment do not depend on where it starts).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flexray.types import Prompt

Layout = Literal["shared_context", "full_prompt"]
Positions = Literal["restart", "continuous"]

# Segment ids. A paraphrase's id is its number, from 1.
CONTEXT = 0
ANSWER = -1
NOBODY = -2  # padding, and free slots


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleLayout:
    """A sample's own tokens (all but the shared context), in stream order. `L` of them are computed."""

    token_ids: np.ndarray  # int64 [L]
    positions: np.ndarray  # int64 [L], RoPE position ids
    segments: np.ndarray  # int32 [L]
    orders: np.ndarray  # int32 [L], index in the stream: a query sees no key of a higher order
    copy_segments: np.ndarray  # int32 [M], the segment each rotated copy of the context belongs to
    copy_offsets: np.ndarray  # int64 [M], position, and order, of the copy's first token
    sees_context: bool  # whether the shared context itself is part of this sample
    context_bias: float  # added to answer-to-context scores: log N for N copies kept as one
    answer_position: int  # position of the first generated token
    answer_order: int  # order of the first generated token

    @property
    def num_tokens(self) -> int:
        """Tokens to prefill."""
        return len(self.token_ids)


def lay_out(prompt: Prompt, layout: Layout, positions: Positions) -> SampleLayout:
    """Lay a prompt out.

    >>> p = Prompt(context=(7, 8), segments=((1,), (2, 3)), cue=(9,))
    >>> lay_out(p, "shared_context", "restart").positions.tolist()
    [2, 2, 3, 4]
    >>> lay_out(p, "shared_context", "continuous").positions.tolist()
    [2, 3, 4, 5]
    >>> lay_out(p, "full_prompt", "continuous").positions.tolist()
    [2, 5, 6, 7]
    """
    shape = _shape(len(prompt.context), tuple(map(len, prompt.segments)), len(prompt.cue), layout, positions)
    token_ids = np.fromiter(itertools.chain(*prompt.segments, prompt.cue), np.int64, len(shape.segments))
    return dataclasses.replace(shape, token_ids=token_ids)


@functools.lru_cache(maxsize=4096)
def _shape(
    num_context: int, lengths: tuple[int, ...], num_cue: int, layout: Layout, positions: Positions
) -> SampleLayout:
    """All of a layout but the token ids: it depends on lengths only, and those repeat."""
    copied = layout == "full_prompt" and positions == "continuous" and num_context > 0
    segments: list[int] = []
    orders: list[int] = []
    copy_offsets: list[int] = []
    order = 0 if copied else num_context
    for number, length in enumerate(lengths, start=1):
        if copied:
            copy_offsets.append(order)
            order += num_context
        segments += [number] * length
        orders += range(order, order + length)
        order += length
    segments += [ANSWER] * num_cue
    orders += range(order, order + num_cue)
    order += num_cue

    if positions == "restart":
        answer_start = num_context + max(lengths)
        position_ids = [num_context + i for n in lengths for i in range(n)]
        position_ids += range(answer_start, answer_start + num_cue)
        answer_position = answer_start + num_cue
    else:
        position_ids = list(orders)
        answer_position = order

    return SampleLayout(
        token_ids=np.zeros(0, dtype=np.int64),
        positions=np.asarray(position_ids, dtype=np.int64),
        segments=np.asarray(segments, dtype=np.int32),
        orders=np.asarray(orders, dtype=np.int32),
        copy_segments=np.arange(1, len(copy_offsets) + 1, dtype=np.int32),
        copy_offsets=np.asarray(copy_offsets, dtype=np.int64),
        sees_context=not copied,
        context_bias=math.log(len(lengths)) if layout == "full_prompt" and not copied else 0.0,
        answer_position=answer_position,
        answer_order=order,
    )
