"""Where each token of a prompt stands: its segment, its RoPE position, its slot among the prompt's KV slots.

A request has a *shared prefix*, the paraphrases behind the context, and one or more *sequences*: answers that
continue it. A sequence attends to all paraphrases (fused in attention) or to one of them (as if that had been
asked alone), and to its own answer prefix and generated tokens:

    [context] [P1] .. [PN]  [answer prefix][tokens of sequence 0]  [answer prefix][tokens of sequence 1] ..

The engine computes the context once for all requests, so a request's own tokens are its paraphrases and the
answer prefixes of its sequences.

In the layout `full_prompt` each paraphrase has a copy of the context before it. The copies are never
computed:

* `restart`: all copies have the same positions, so they are one copy whose attention scores get `+log N` for
  answer queries (softmax over N equal scores = one score plus log N): a bias of the sequence's scope;
* `continuous`: a copy that starts at position `o` has the context's values, and its keys rotated by `o`
  (RoPE is relative, Su et al. 2021, arXiv:2104.09864: R(p + o) = R(o) R(p), and the hidden states of an
  isolated causal segment do not depend on where it starts): `SharedPrefix.copies`.

A sequence that attends to one paraphrase computes exactly that paraphrase's own prompt, since isolated
segments are independent causal sequences. So methods that ask each paraphrase alone share a prefill with
those that fuse.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from flexray.prompts.prompt import MAX_PARAPHRASES, Prompt

SEGMENT_BITS = 12
"""A KV slot's segment id is `request << SEGMENT_BITS | segment`: unique in the pool. The context has its
own."""
CONTEXT_ID = -1
ALL_PARAPHRASES = 0
"""In place of a paraphrase's segment: all of them."""
FIRST_ANSWER = 1 << (SEGMENT_BITS - 1)
"""Paraphrases are segments 1 to 2047, answers 2048 to 4095."""
MAX_REQUESTS = 1 << (31 - SEGMENT_BITS)


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """What is prefilled before the answers. Methods with equal prefixes share one prefill."""

    copies: bool = False  # each paraphrase has a rotated copy of the context, and sees no other
    continuous: bool = False  # positions run on; else each paraphrase starts right after the context
    joined_manual: bool = False  # the manual paraphrases, the first ones, see each other, causally


@dataclass(frozen=True, slots=True)
class AttentionScope:
    """What a sequence attends to, and with which bias."""

    paraphrase: int | None = None  # index of the only one it sees; None: all
    context_bias: float = 0.0  # added to its scores against the shared context
    paraphrase_bias: float = 0.0  # added to its scores against paraphrases


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Layout:
    """All of a prompt's layout but its token ids: it depends on lengths only. L own tokens, B sequences.

    A request's slots are numbered in the order of its tokens; each answer prefix is followed by the slots of
    the tokens that the sequence will generate.
    """

    num_slots: int  # KV slots: copies of the context, own tokens, generated tokens
    slot_segments: np.ndarray  # int64 [num_slots]
    first_causal_index: int  # of slot 0; a query sees no key of a higher causal index
    slots: np.ndarray  # int64 [L], where the own tokens go
    positions: np.ndarray  # int64 [L], RoPE position ids
    visible_segments: np.ndarray  # int64 [L], the paraphrase that each token sees, or ALL_PARAPHRASES
    paraphrase_segments: tuple[int, ...]  # the segment of each paraphrase
    biases: np.ndarray  # float32 [2, L], against context and paraphrases
    copy_slots: np.ndarray  # int64 [M], slot, and position, of each rotated copy's first token
    logits_indices: np.ndarray  # int64 [B], own token whose logits give a sequence's first token
    scopes: tuple[AttentionScope, ...]  # [B]
    answer_positions: np.ndarray  # int64 [B], of the first generated token
    answer_slots: np.ndarray  # int64 [B], of the first generated token

    @property
    def sees_context(self) -> bool:
        """Whether the shared context itself is part of this prompt."""
        return not len(self.copy_slots)


@dataclass(frozen=True, slots=True)
class PackedPrompt:
    """A prompt's own tokens, laid out."""

    layout: Layout
    token_ids: np.ndarray  # int64 [L]: paraphrases, then each sequence's answer prefix

    @property
    def num_tokens(self) -> int:
        """Tokens to prefill."""
        return len(self.token_ids)


def lay_out(
    prompt: Prompt, prefix: SharedPrefix, scopes: tuple[AttentionScope, ...], max_new_tokens: int
) -> PackedPrompt:
    """Lay a prompt out.

    >>> p = Prompt(context=(7, 8), segments=((1,), (2, 3)), answer_prefix=(9,))
    >>> lay_out(p, SharedPrefix(), (AttentionScope(),), 1).layout.positions.tolist()
    [2, 2, 3, 4]
    >>> lay_out(p, SharedPrefix(), (AttentionScope(0), AttentionScope(1)), 1).layout.positions.tolist()
    [2, 2, 3, 3, 4]
    >>> lay_out(p, SharedPrefix(continuous=True), (AttentionScope(),), 1).layout.positions.tolist()
    [2, 3, 4, 5]
    >>> copies = SharedPrefix(continuous=True, copies=True)
    >>> lay_out(p, copies, (AttentionScope(),), 1).layout.positions.tolist()
    [2, 5, 6, 7]
    """
    layout = _layout(
        len(prompt.context),
        tuple(map(len, prompt.segments)),
        len(prompt.answer_prefix),
        prompt.num_manual if prefix.joined_manual else 0,
        prefix,
        scopes,
        max_new_tokens,
    )
    tokens = itertools.chain(*prompt.segments, *itertools.repeat(prompt.answer_prefix, len(scopes)))
    return PackedPrompt(layout, np.fromiter(tokens, np.int64, len(layout.slots)))


@functools.lru_cache(maxsize=4096)
def _layout(
    num_context: int,
    lengths: tuple[int, ...],
    num_answer_prefix: int,
    joined: int,
    prefix: SharedPrefix,
    scopes: tuple[AttentionScope, ...],
    max_new_tokens: int,
) -> Layout:
    assert len(lengths) <= MAX_PARAPHRASES < FIRST_ANSWER
    assert len(scopes) <= FIRST_ANSWER
    copied = num_context if prefix.copies else 0
    segments = tuple(1 if number <= joined else number for number in range(1, len(lengths) + 1))
    slot_segments: list[int] = []
    slots: list[int] = []
    positions: list[int] = []
    visible: list[int] = []
    copy_slots: list[int] = []
    for segment, length in zip(segments, lengths, strict=True):
        if copied:
            copy_slots.append(len(slot_segments))
        slot_segments += [segment] * copied
        start = len(slot_segments) if copied or not prefix.continuous else num_context + len(slot_segments)
        if not prefix.continuous:
            start = num_context
        slots += range(len(slot_segments), len(slot_segments) + length)
        slot_segments += [segment] * length
        positions += range(start, start + length)
        visible += [segment] * length
    behind_all = len(slot_segments) + (0 if copied else num_context)

    biases = np.zeros((2, len(slots) + len(scopes) * num_answer_prefix), dtype=np.float32)
    logits_indices: list[int] = []
    answer_positions: list[int] = []
    answer_slots: list[int] = []
    for number, scope in enumerate(scopes):
        if scope.paraphrase is None:
            start = behind_all if prefix.continuous else num_context + max(lengths)
        else:
            assert not prefix.continuous, "a paraphrase that is asked alone follows the context directly"
            start = num_context + lengths[scope.paraphrase]
        own = slice(len(slots), len(slots) + num_answer_prefix)
        biases[:, own] = [[scope.context_bias], [scope.paraphrase_bias]]
        slots += range(len(slot_segments), len(slot_segments) + num_answer_prefix)
        slot_segments += [FIRST_ANSWER + number] * (num_answer_prefix + max_new_tokens)
        positions += range(start, start + num_answer_prefix)
        seen = ALL_PARAPHRASES if scope.paraphrase is None else segments[scope.paraphrase]
        visible += [seen] * num_answer_prefix
        logits_indices.append(len(slots) - 1)
        answer_positions.append(start + num_answer_prefix)
        answer_slots.append(len(slot_segments) - max_new_tokens)

    def int64(values: list[int]) -> np.ndarray:
        return np.asarray(values, dtype=np.int64)

    return Layout(
        num_slots=len(slot_segments),
        slot_segments=int64(slot_segments),
        first_causal_index=0 if copied else num_context,
        slots=int64(slots),
        positions=int64(positions),
        visible_segments=int64(visible),
        paraphrase_segments=segments,
        biases=biases,
        copy_slots=int64(copy_slots),
        logits_indices=int64(logits_indices),
        scopes=scopes,
        answer_positions=int64(answer_positions),
        answer_slots=int64(answer_slots),
    )
