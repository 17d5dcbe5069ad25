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

Paraphrases of one question begin alike. At `restart` equal beginnings have equal positions and see the same
tokens, so their hidden states are equal: they are computed and stored once (`SharedPrefix.merged`), and a
query that sees all paraphrases adds the log of how many share a key to its score, for the same reason.

A sequence that attends to one paraphrase computes exactly that paraphrase's own prompt, since isolated
segments are independent causal sequences. So methods that ask each paraphrase alone share a prefill with
those that fuse.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flexray.masks.prefix_trie import prefix_trie
from flexray.masks.runs import LENGTH, PREFILLED, SLOT, Run, expand
from flexray.prompts.prompt import MAX_PARAPHRASES, Prompt

SEGMENT_BITS = 12
"""A KV slot's segment id is `request << SEGMENT_BITS | segment`: unique in the pool. The context has negative
ones (see flexray.masks.shared_context)."""
FIRST_ANSWER = 1 << (SEGMENT_BITS - 1)
"""Paraphrases are segments 1 to 2047, answers 2048 to 4095."""
MAX_ANSWERS = FIRST_ANSWER
"""The most sequences that continue one shared prefix."""
ALL_PARAPHRASES = (1, FIRST_ANSWER - 1)
"""The range of segments that a sequence sees which attends to all paraphrases."""
ALL_MEMBERS = -1
"""All bits, for a sequence that may see all paraphrases in its range (see `member_bits`)."""
MAX_CHOSEN = 63
"""Paraphrases that a question may have if a sequence sees some of them: each is a bit of a number."""
MAX_REQUESTS = 1 << (31 - SEGMENT_BITS)
NUM_BIASES = 5
"""Numbers of a query that its scores depend on; all are 0 for one that answers nothing."""


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """What is prefilled before the answers. Methods with equal prefixes share one prefill."""

    copies: bool = False  # each paraphrase has a rotated copy of the context, and sees no other
    continuous: bool = False  # positions run on; else each paraphrase starts right after the context
    joined_manual: bool = False  # the manual paraphrases, the first ones, see each other, causally
    joined: bool = False  # all paraphrases do: plain causal attention
    apart: bool = False  # no token is shared between paraphrases, so that a sequence may see any of them
    merged: bool = False  # equal beginnings of paraphrases are computed and stored once
    head_in_context: bool = False  # the template's head of all paraphrases is computed with the context
    adaptive: bool = False  # its answers attend to paraphrases as `flexray.masks.adaptive` says

    @property
    def can_merge(self) -> bool:
        """Whether equal beginnings of paraphrases have equal hidden states."""
        return not (self.copies or self.continuous or self.joined_manual or self.joined or self.apart)


@dataclass(frozen=True, slots=True)
class AttentionScope:
    """What a sequence attends to, and with which bias."""

    paraphrase: int | None = None  # index of the only one it sees; None: all
    context_bias: float = 0.0  # added to its scores against the shared context
    paraphrase_bias: float = 0.0  # added to its scores against paraphrases
    temperature: float = 1.0  # divides these scores; other than 1, as the next, in an adaptive prefix only
    scale: float = 1.0  # of the log of their sum (see flexray.masks.adaptive)
    subset: tuple[int, ...] | None = None  # indices of those it sees, of at most MAX_CHOSEN; None: see above

    @property
    def chosen(self) -> tuple[int, ...] | None:
        """Indices of the paraphrases that it sees; None: all."""
        return self.subset if self.paraphrase is None else (self.paraphrase,)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Layout:
    """All of a prompt's layout but its token ids. L own tokens, B sequences.

    A request's slots are numbered in the order of its tokens; each answer prefix is followed by the slots of
    the tokens that the sequence will generate.
    """

    runs: np.ndarray  # int64 [R, 8], in the order of their slots (see flexray.masks.runs)
    num_slots: int  # KV slots: copies of the context, own tokens, generated tokens
    first_causal_index: int  # of slot 0; a query sees no key of a higher causal index
    paraphrase_segments: tuple[int, ...]  # the segment of each paraphrase
    copy_slots: np.ndarray  # int64 [M], slot, and position, of each rotated copy's first token
    members: tuple[int, ...] | None  # [B], see `member_bits`; None: no sequence sees some paraphrases only
    biases: tuple[tuple[float, ...], ...]  # [B] of NUM_BIASES, as QueryTables has them
    logits_indices: tuple[int, ...]  # [B], own token whose logits give a sequence's first token
    answer_positions: tuple[int, ...]  # [B], of the first generated token
    answer_slots: tuple[int, ...]  # [B], of the first generated token

    @property
    def sees_context(self) -> bool:
        """Whether the shared context itself is part of this prompt."""
        return not len(self.copy_slots)

    @property
    def tokens(self) -> np.ndarray:
        """int64 [L, 8]: the columns of `runs` for each own token, with its own SLOT and POSITION."""
        return expand(self.runs[self.runs[:, PREFILLED] == 1])


@dataclass(frozen=True, slots=True)
class PackedPrompt:
    """A prompt's own tokens, laid out."""

    layout: Layout
    token_ids: np.ndarray  # int64 [L]: paraphrases, then each sequence's answer prefix
    num_shared: int = 0  # tokens that need not be prefilled, as others are equal

    @property
    def num_tokens(self) -> int:
        """Tokens to prefill."""
        return len(self.token_ids)


def lay_out(
    prompt: Prompt, prefix: SharedPrefix, scopes: tuple[AttentionScope, ...], max_new_tokens: int
) -> PackedPrompt:
    """Lay a prompt out: by itself, whatever other prompts there are.

    >>> from flexray.masks.runs import POSITION
    >>> p = Prompt(context=(7, 8), segments=((1,), (2, 3)), answer_prefix=(9,))
    >>> lay_out(p, SharedPrefix(), (AttentionScope(),), 1).layout.tokens[:, POSITION].tolist()
    [2, 2, 3, 4]
    >>> each = (AttentionScope(0), AttentionScope(1))
    >>> lay_out(p, SharedPrefix(), each, 1).layout.tokens[:, POSITION].tolist()
    [2, 2, 3, 3, 4]
    >>> lay_out(p, SharedPrefix(continuous=True), (AttentionScope(),), 1).layout.tokens[:, POSITION].tolist()
    [2, 3, 4, 5]
    >>> copies = SharedPrefix(continuous=True, copies=True)
    >>> lay_out(p, copies, (AttentionScope(),), 1).layout.tokens[:, POSITION].tolist()
    [2, 5, 6, 7]
    >>> p = Prompt(context=(7, 8), segments=((1, 2, 3), (4,), (1, 2)), answer_prefix=(9,))
    >>> lay_out(p, SharedPrefix(merged=True), (AttentionScope(),), 1).token_ids.tolist()
    [1, 2, 3, 4, 9]
    """
    count = len(prompt.segments)
    num_context = len(prompt.context) + (prompt.num_head if prefix.head_in_context else 0)
    behind_context = num_context - (0 if prefix.continuous else prompt.num_beside)  # in positions
    paraphrases = prompt.segments
    if head := num_context - len(prompt.context):
        paraphrases = tuple([text[head:] for text in paraphrases])
    assert count <= MAX_PARAPHRASES < FIRST_ANSWER
    assert len(scopes) <= FIRST_ANSWER
    copy_slots: list[int] = []
    if prefix.merged:
        assert prefix.can_merge
        segments, runs, texts = _merge(paraphrases, behind_context)
    else:
        joined = count if prefix.joined else prompt.num_manual if prefix.joined_manual else 0
        segments = tuple([1 if number <= joined else number for number in range(1, count + 1)])
        copied = num_context if prefix.copies else 0
        runs, copy_slots = _isolate(paraphrases, segments, copied, behind_context, prefix)
        texts = list(paraphrases)
    slot = runs[-1][SLOT] + runs[-1][LENGTH]
    num_prefix = sum(map(len, texts))
    behind_all = behind_context + max(map(len, paraphrases))
    if prefix.continuous:
        behind_all = slot if copy_slots else num_context + slot

    length = len(prompt.answer_prefix)
    answer_positions: list[int] = []
    answer_slots: list[int] = []
    for number, scope in enumerate(scopes, start=FIRST_ANSWER):
        assert prefix.adaptive or scope.temperature == scope.scale == 1
        if scope.subset is not None:
            assert prefix.apart
            longest = max((len(paraphrases[index]) for index in scope.subset), default=0)
            position, (low, high) = behind_context + longest, ALL_PARAPHRASES
        elif (only := scope.paraphrase) is None:
            position, (low, high) = behind_all, ALL_PARAPHRASES
        else:
            assert not prefix.continuous, "a paraphrase that is asked alone follows the context directly"
            position, low, high = behind_context + len(paraphrases[only]), segments[only], segments[only]
        runs.append((number, number, slot, length, position, low, high, 1))
        slot, position = slot + length, position + length
        runs.append((number, number, slot, max_new_tokens, position, low, high, 0))
        answer_positions.append(position)
        answer_slots.append(slot)
        slot += max_new_tokens
    num_tokens = num_prefix + len(scopes) * length
    layout = Layout(
        runs=np.fromiter(itertools.chain.from_iterable(runs), np.int64).reshape(len(runs), -1),
        num_slots=slot,
        first_causal_index=0 if copy_slots else num_context,
        paraphrase_segments=segments,
        copy_slots=np.array(copy_slots, dtype=np.int64),
        members=_members(scopes, count),
        biases=tuple([_biases(scope, count) for scope in scopes]),
        logits_indices=tuple(range(num_prefix + length - 1, num_tokens, length)),
        answer_positions=tuple(answer_positions),
        answer_slots=tuple(answer_slots),
    )
    tokens = itertools.chain(*texts, *itertools.repeat(prompt.answer_prefix, len(scopes)))
    num_shared = sum(map(len, prompt.segments)) - num_prefix
    return PackedPrompt(layout, np.fromiter(tokens, np.int64, num_tokens), num_shared)


def member_bits(paraphrases: Sequence[int]) -> int:
    """A number with a bit for each paraphrase of these indices: that of its segment modulo 64.

    >>> bin(member_bits([0, 2]))
    '0b1010'
    """
    return sum(1 << (index + 1) for index in paraphrases)


def _members(scopes: Sequence[AttentionScope], count: int) -> tuple[int, ...] | None:
    if all(scope.subset is None for scope in scopes):
        return None
    assert count <= MAX_CHOSEN
    bits = [ALL_MEMBERS if scope.subset is None else member_bits(scope.subset) for scope in scopes]
    return tuple(bit - (1 << 64) if bit >= 1 << 63 else bit for bit in bits)  # as int64


def _biases(scope: AttentionScope, count: int) -> tuple[float, ...]:
    """Of a sequence: against the context, log of how many paraphrases it sees, and against those; and what
    its temperature and scale come to."""
    if scope.subset is not None:
        count = max(1, len(scope.subset))
    log_copies = math.log(count if scope.paraphrase is None else 1)
    sharpness, power = 1 / scope.temperature - 1, scope.scale * scope.temperature - 1
    return scope.context_bias, log_copies, scope.paraphrase_bias, sharpness, power


def _isolate(
    paraphrases: Sequence[tuple[int, ...]],
    segments: Sequence[int],
    copied: int,
    behind_context: int,
    prefix: SharedPrefix,
) -> tuple[list[Run], list[int]]:
    """Each paraphrase as one run, in `copies` behind a copy of the context's `copied` tokens; and the copies'
    slots."""
    runs: list[Run] = []
    copy_slots: list[int] = []
    slot = 0
    for own, text in zip(segments, paraphrases, strict=True):
        if copied:
            copy_slots.append(slot)
            runs.append((own, own, slot, copied, slot, own, own, 0))
            slot += copied
        position = behind_context
        if prefix.continuous:
            position = slot if copied else behind_context + slot
        runs.append((own, own, slot, len(text), position, own, own, 1))
        slot += len(text)
    return runs, copy_slots


def _merge(
    paraphrases: Sequence[tuple[int, ...]], behind_context: int
) -> tuple[tuple[int, ...], list[Run], list[tuple[int, ...]]]:
    """The segment of each paraphrase; each node of their trie as a run, and its token ids."""
    order, nodes = prefix_trie(paraphrases)
    segments = [0] * len(order)
    for segment, index in enumerate(order, start=1):
        segments[index] = segment
    runs: list[Run] = []
    texts: list[tuple[int, ...]] = []
    slot = 0
    for first, begin, end, last in nodes:
        own, length = first + 1, end - begin
        runs.append((own, last + 1, slot, length, behind_context + begin, own, own, 1))
        texts.append(paraphrases[order[first]][begin:end])
        slot += length
    return tuple(segments), runs, texts
