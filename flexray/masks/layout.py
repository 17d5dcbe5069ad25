"""Where each token of a sample stands: which part it belongs to, its position, its slot.

One sample is a trunk, the paraphrases behind the shared context, and one or more branches, answers that
grow from it. A branch looks at all paraphrases (fused in attention) or at one of them (as if that had been
asked alone), and at its own cue and answer:

    [context] [P1] [P2] .. [PN]  [cue][answer of branch 0]  [cue][answer of branch 1] ..

The engine computes the context once, so a sample's own tokens are its paraphrases and its branches' cues.

In a trunk of `full_prompt` layout each paraphrase has the context before it once more. Those copies are
never computed again:

* `restart`: all copies stand at the same positions, so they are one copy whose attention scores get
  `+log N` for answer queries (softmax over N equal scores = one score plus log N): a branch's bias;
* `continuous`: a copy that starts at position `o` has the context's values, and its keys rotated by
  `o` (RoPE is relative, Su et al. 2021, arXiv:2104.09864: R(p + o) = R(o) R(p), and the hidden states
  of an isolated causal segment do not depend on where it starts): `Trunk.copies`.

A branch that looks at one paraphrase is exactly that paraphrase's own prompt, since isolated segments are
independent causal sequences. So methods that ask each paraphrase alone share a prefill with those that fuse.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from flexray.types import MAX_PARAPHRASES, Prompt

# A slot's code is its row's number and its part: row << PART_BITS | part. The shared context has one code.
PART_BITS = 12
CONTEXT_CODE = -1
ALL = 0  # in place of a paraphrase's part: all of them
FIRST_BRANCH = 1 << (PART_BITS - 1)  # paraphrases are parts 1..2047, branches 2048..4095
MAX_ROWS = 1 << (31 - PART_BITS)


@dataclass(frozen=True, slots=True)
class Trunk:
    """What is prefilled before the branches. Methods with equal trunks share it."""

    copies: bool = False  # each paraphrase has a rotated copy of the context, and sees no other
    continuous: bool = False  # positions run on; else each paraphrase starts right behind the context
    joined_manual: bool = False  # the manual paraphrases, the first ones, see each other, causally


@dataclass(frozen=True, slots=True)
class View:
    """What a branch looks at, and how."""

    paraphrase: int | None = None  # index of the only one it sees; None: all
    context_bias: float = 0.0  # added to its scores against the shared context
    paraphrase_bias: float = 0.0  # added to its scores against paraphrases


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shape:
    """All of a sample but its token ids: it depends on lengths only. L own tokens, B branches.

    A row's slots are numbered in the order of its stream; each branch's answer has its slots behind its cue.
    """

    num_slots: int  # of the pool: copies of the context, own tokens, answers
    slot_parts: np.ndarray  # int64 [num_slots]
    first_order: int  # order of slot 0; a query sees no key of a higher order
    slots: np.ndarray  # int64 [L], where the own tokens go
    positions: np.ndarray  # int64 [L], RoPE position ids
    seen_parts: np.ndarray  # int64 [L], the paraphrase part each token sees, or ALL
    paraphrase_parts: tuple[int, ...]  # the part of each paraphrase
    biases: np.ndarray  # float32 [2, L], against context and paraphrases
    copy_slots: np.ndarray  # int64 [M], slot, and position, of each rotated copy's first token
    cue_ends: np.ndarray  # int64 [B], own token whose logits give a branch's first token
    views: tuple[View, ...]  # [B]
    answer_positions: np.ndarray  # int64 [B], of the first generated token
    answer_slots: np.ndarray  # int64 [B], of the first generated token

    @property
    def sees_context(self) -> bool:
        """Whether the shared context itself is part of this sample."""
        return not len(self.copy_slots)


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt, laid out."""

    shape: Shape
    token_ids: np.ndarray  # int64 [L], its own tokens: paraphrases, then each branch's cue

    @property
    def num_tokens(self) -> int:
        """Tokens to prefill."""
        return len(self.token_ids)


def lay_out(prompt: Prompt, trunk: Trunk, views: tuple[View, ...], max_new_tokens: int) -> Sample:
    """Lay a prompt out.

    >>> p = Prompt(context=(7, 8), segments=((1,), (2, 3)), cue=(9,))
    >>> lay_out(p, Trunk(), (View(),), 1).shape.positions.tolist()
    [2, 2, 3, 4]
    >>> lay_out(p, Trunk(), (View(0), View(1)), 1).shape.positions.tolist()
    [2, 2, 3, 3, 4]
    >>> lay_out(p, Trunk(continuous=True), (View(),), 1).shape.positions.tolist()
    [2, 3, 4, 5]
    >>> lay_out(p, Trunk(continuous=True, copies=True), (View(),), 1).shape.positions.tolist()
    [2, 5, 6, 7]
    """
    shape = _shape(
        len(prompt.context),
        tuple(map(len, prompt.segments)),
        len(prompt.cue),
        prompt.num_manual if trunk.joined_manual else 0,
        trunk,
        views,
        max_new_tokens,
    )
    parts = itertools.chain(*prompt.segments, *itertools.repeat(prompt.cue, len(views)))
    return Sample(shape, np.fromiter(parts, np.int64, len(shape.slots)))


@functools.lru_cache(maxsize=4096)
def _shape(
    num_context: int,
    lengths: tuple[int, ...],
    num_cue: int,
    joined: int,
    trunk: Trunk,
    views: tuple[View, ...],
    max_new_tokens: int,
) -> Shape:
    assert len(lengths) <= MAX_PARAPHRASES < FIRST_BRANCH
    assert len(views) <= FIRST_BRANCH
    copied = num_context if trunk.copies else 0
    parts = tuple(1 if number <= joined else number for number in range(1, len(lengths) + 1))
    slot_parts: list[int] = []
    slots: list[int] = []
    positions: list[int] = []
    seen: list[int] = []
    copy_slots: list[int] = []
    for part, length in zip(parts, lengths, strict=True):
        if copied:
            copy_slots.append(len(slot_parts))
        slot_parts += [part] * copied
        start = len(slot_parts) if copied or not trunk.continuous else num_context + len(slot_parts)
        if not trunk.continuous:
            start = num_context
        slots += range(len(slot_parts), len(slot_parts) + length)
        slot_parts += [part] * length
        positions += range(start, start + length)
        seen += [part] * length
    behind_all = len(slot_parts) + (0 if copied else num_context)

    biases = np.zeros((2, len(slots) + len(views) * num_cue), dtype=np.float32)
    cue_ends: list[int] = []
    answer_positions: list[int] = []
    answer_slots: list[int] = []
    for number, view in enumerate(views):
        if view.paraphrase is None:
            start = behind_all if trunk.continuous else num_context + max(lengths)
        else:
            assert not trunk.continuous, "a paraphrase that is asked alone stands right behind the context"
            start = num_context + lengths[view.paraphrase]
        biases[:, len(slots) : len(slots) + num_cue] = [[view.context_bias], [view.paraphrase_bias]]
        slots += range(len(slot_parts), len(slot_parts) + num_cue)
        slot_parts += [FIRST_BRANCH + number] * (num_cue + max_new_tokens)
        positions += range(start, start + num_cue)
        seen += [ALL if view.paraphrase is None else parts[view.paraphrase]] * num_cue
        cue_ends.append(len(slots) - 1)
        answer_positions.append(start + num_cue)
        answer_slots.append(len(slot_parts) - max_new_tokens)

    return Shape(
        num_slots=len(slot_parts),
        slot_parts=np.asarray(slot_parts, dtype=np.int64),
        first_order=0 if copied else num_context,
        slots=np.asarray(slots, dtype=np.int64),
        positions=np.asarray(positions, dtype=np.int64),
        seen_parts=np.asarray(seen, dtype=np.int64),
        paraphrase_parts=parts,
        biases=biases,
        copy_slots=np.asarray(copy_slots, dtype=np.int64),
        cue_ends=np.asarray(cue_ends, dtype=np.int64),
        views=views,
        answer_positions=np.asarray(answer_positions, dtype=np.int64),
        answer_slots=np.asarray(answer_slots, dtype=np.int64),
    )
