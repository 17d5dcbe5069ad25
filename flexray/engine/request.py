"""A question on its way through the engine: its prompt, its sequences, and what became of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence as Listed
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flexray.config import Backend
from flexray.engine.generation import Logprobs
from flexray.masks.layout import (
    AttentionScope,
    PackedPrompt,
    SharedPrefix,
    lay_out,
)
from flexray.masks.shared_context import SharedContext, shared_context
from flexray.masks.visibility import Bias
from flexray.methods import GREEDY, Fusion, Method, SamplingParams
from flexray.prompts.prompt import Prompt

if TYPE_CHECKING:
    from flexray.engine.kv_cache import BlockTable


@dataclass(frozen=True, slots=True)
class PrefixGroup:
    """Methods that continue the same shared prefix, by their numbers in the run, so that it is prefilled
    once."""

    prefix: SharedPrefix
    methods: tuple[tuple[int, Method], ...]
    with_head: bool = False
    """Whether the context in the cache has the head of the paraphrases behind it: for this group or another
    one."""

    @property
    def bias(self) -> Bias | None:
        """What may be added to scores: biases of the methods, or what paraphrases share."""
        if any(method.biased for _, method in self.methods):
            return "all"
        sees_all = any(not method.attends_to_one for _, method in self.methods)
        return "copies" if self.prefix.merged and sees_all else None


def group_by_prefix(methods: Listed[Method], *, share_prefixes: bool) -> tuple[PrefixGroup, ...]:
    """The methods by shared prefix, in the order of their first ones.

    Args:
        share_prefixes: compute equal beginnings of paraphrases once, where they are equal.
    """
    by_prefix: dict[SharedPrefix, list[tuple[int, Method]]] = {}
    for number, method in enumerate(methods):
        prefix = method.prefix
        if share_prefixes and prefix.can_merge:
            prefix = replace(prefix, merged=True, head_in_context=True)
        by_prefix.setdefault(prefix, []).append((number, method))
    # one context for all: another one would take the place of the first in the cache, time and again
    with_head = any(prefix.head_in_context for prefix in by_prefix)
    return tuple(PrefixGroup(prefix, tuple(found), with_head) for prefix, found in by_prefix.items())


@dataclass(eq=False, slots=True)
class Sequence:
    """One answer on its way."""

    request: Request
    method: int  # number in the run
    fusion: Fusion | None
    scope: AttentionScope
    sampling: SamplingParams
    weight: float  # among the sequences that make the same answer
    answer: int  # of its method's answers, which of them it makes, alone or with others
    forced: tuple[int, ...] = ()  # a candidate's tokens, which it takes whatever it would choose
    row: int = -1  # in the SequenceTable, while it is running
    steps_left: int = 0  # decode steps until it has finished at the latest
    token_ids: tuple[int, ...] | None = None  # once it has finished
    logprobs: Logprobs | None = None  # of these, if they are asked for
    is_finite: bool = True  # whether all logits that its tokens were chosen from were

    @property
    def fusion_group(self) -> tuple[int, int, int]:
        """What sequences that choose together have in common."""
        return (self.request.index, self.method, self.answer)


@dataclass(eq=False)
class Request:
    """One prompt, to be answered by all methods of one shared prefix.

    What is known of it is on it: how often it was tried, why again, by which backend it was answered, or why
    it was not.
    """

    index: int  # of the prompt, in the caller's list
    prompt: Prompt
    group: PrefixGroup
    max_new_tokens: int  # with candidates those of the longest one
    attempts: int = 0
    reasons: list[str] = field(
        default_factory=list
    )  # why a first attempt, or the requested backend, was not enough
    backend: Backend | None = None  # that answered it
    error: str = ""
    block_table: BlockTable | None = None  # while it holds KV blocks
    num_sequences: int = field(init=False)
    """How many `sequences` it has: known before they are made."""
    most_slots: int = field(init=False)
    """KV slots that it takes at most: known before it is laid out."""

    def __post_init__(self) -> None:
        prompt = self.prompt
        if prompt.candidates:
            self.max_new_tokens = max(map(len, prompt.candidates))
        # of each method; none for one that needs confidences that the prompt has not
        self._scopes = [
            (number, method, method.scopes(prompt))
            for number, method in self.group.methods
            if prompt.confidences is not None or not method.needs_confidences
        ]
        self.num_sequences = sum([len(scopes) for _, _, scopes in self._scopes]) * self.num_candidates
        copies = len(prompt.context) * len(prompt.segments) if self.group.prefix.copies else 0
        answers = self.num_sequences * (len(prompt.answer_prefix) + self.max_new_tokens)
        self.most_slots = copies + sum(map(len, prompt.segments)) + answers

    @functools.cached_property
    def sequences(self) -> tuple[Sequence, ...]:
        """Its answers, method by method."""
        found: list[Sequence] = []
        for number, method, scopes in self._scopes:
            sampling = method.sampling(self.prompt) if method.sampling else [GREEDY] * len(scopes)
            answers = method.answer_numbers(self.prompt, len(scopes))
            weights = method.weights_of(self.prompt, answers)
            assert not method.attends_to_one or all(scope.paraphrase is not None for scope in scopes)
            count = self.num_candidates
            for index, forced in enumerate(self.prompt.candidates or ((),)):
                found += [
                    Sequence(
                        self, number, method.fusion, scope, params, weight, answer * count + index, forced
                    )
                    for scope, params, weight, answer in zip(scopes, sampling, weights, answers, strict=True)
                ]
        return tuple(found)

    @property
    def num_candidates(self) -> int:
        """Of each answer: the sequences of a method make each of them with every candidate."""
        return len(self.prompt.candidates) or 1

    @functools.cached_property
    def packed(self) -> PackedPrompt:
        """Its own tokens, laid out."""
        scopes = tuple(sequence.scope for sequence in self.sequences)
        return lay_out(self.prompt, self.group.prefix, scopes, self.max_new_tokens)

    @functools.cached_property
    def seen(self) -> dict[Sequence, frozenset[int]]:
        """Of each of its sequences the ids of all prompt tokens that it sees."""
        prompt, found = self.prompt, {}
        for sequence in self.sequences:
            seen = sequence.scope.chosen
            segments = prompt.segments if seen is None else [prompt.segments[i] for i in seen]
            found[sequence] = frozenset().union(prompt.context, *segments, prompt.answer_prefix)
        return found

    @property
    def context(self) -> SharedContext:
        """What it has in common with other requests."""
        group = self.group
        return shared_context(self.prompt, with_head=group.with_head, continuous=group.prefix.continuous)

    @property
    def num_slots(self) -> int:
        """KV slots that it takes."""
        return self.packed.layout.num_slots

    @property
    def is_finished(self) -> bool:
        """Whether all its sequences have their tokens."""
        return all(sequence.token_ids is not None for sequence in self.sequences)

    @property
    def is_finite(self) -> bool:
        """Whether none of its sequences met logits that are not finite."""
        return all(sequence.is_finite for sequence in self.sequences)

    def of_method(self, number: int) -> list[Sequence]:
        """The sequences of one method."""
        return [sequence for sequence in self.sequences if sequence.method == number]

    def answers_of(self, method: int) -> list[list[Sequence]]:
        """Those that make each answer of one method, in the order of its answers; with candidates, each
        answer with the first candidate, then with the second, and so on."""
        answers: dict[int, list[Sequence]] = {}
        for sequence in self.of_method(method):
            answers.setdefault(sequence.answer, []).append(sequence)
        return [answers[number] for number in sorted(answers)]

    def explain(self, reason: str) -> None:
        """Add a reason, once."""
        if reason not in self.reasons:
            self.reasons.append(reason)

    def restart(self) -> None:
        """Forget what an earlier attempt has generated, and the KV blocks that it may have held."""
        self.block_table = None
        for sequence in self.__dict__.get("sequences", ()):  # if they were made
            sequence.row, sequence.token_ids, sequence.is_finite = -1, None, True
            sequence.logprobs = None


def seen_by(sequences: Listed[Sequence]) -> tuple[int, ...]:
    """Indices of the paraphrases that were chosen for one answer's sequences, in their order."""
    return tuple(index for sequence in sequences for index in sequence.scope.chosen or ())


def sequences_at_once(requests: Listed[Request], most: int) -> int:
    """The most sequences that `most` of the requests have together."""
    return sum(sorted((request.num_sequences for request in requests), reverse=True)[:most])
