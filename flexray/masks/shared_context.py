"""The context that requests share: where its tokens stand, and which of them see which.

A few-shot may be asked in several paraphrases, as a row is:

    [BOS, instruction] [P11] .. [P1m] [answer 1] [P21] .. [answer F]

Each of its paraphrases sees what comes before the few-shot, and itself; its answer and all that follows see
everything before them. So the context is a sequence of *parts*. Their segment ids are negative and ascend,
and a part's tokens see the parts up to some id, beside their own: the one rule of `flexray.masks.visibility`.
Requests have positive ids, so they see all of it. A context without such few-shots is one part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from flexray.prompts.prompt import Prompt

HEAD_ID = -1
"""The segment id of the context's tokens that are the head of each paraphrase."""
CONTEXT_ID = -2
"""Of the last part of the context; those before it have lower ids."""


class ContextPart(NamedTuple):
    """Consecutive tokens [start, stop) of the context, at consecutive positions."""

    name: str  # "context"; of the first few-shot "F1P1" and so on, then "F1A", its answer and what follows
    start: int
    stop: int
    position: int  # RoPE, of the first token
    segment: int  # segment id
    sees: int  # the highest segment id that its tokens see beside their own


@dataclass(frozen=True, slots=True)
class SharedContext:
    """The tokens that are computed once for many requests."""

    token_ids: tuple[int, ...]
    num_head: int = 0  # the last so many are the head of each paraphrase
    few_shots: tuple[tuple[int, ...], ...] = ()  # see Prompt
    continuous: bool = False  # positions run on within few_shots; else their paraphrases stand side by side

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def parts(self) -> list[ContextPart]:
        """All of it, in order. Only the first may be empty."""
        parts: list[ContextPart] = []
        # a few-shot of n bounds has n parts: n - 1 paraphrases, and its answer with what follows
        lowest = CONTEXT_ID - sum(map(len, self.few_shots))

        def add(name: str, start: int, stop: int, position: int, sees: int | None = None) -> int:
            segment = lowest + len(parts)
            parts.append(ContextPart(name, start, stop, position, segment, segment if sees is None else sees))
            return position + stop - start

        asked_at = [*(few_shot[0] for few_shot in self.few_shots), self.num_plain]
        position = add("context", 0, asked_at[0], 0)
        for number, few_shot in enumerate(self.few_shots, start=1):
            begin, before = position, parts[-1].segment
            for place, (start, stop) in enumerate(pairwise(few_shot), start=1):
                first = position if self.continuous else begin
                position = max(position, add(f"F{number}P{place}", start, stop, first, before))
            position = add(f"F{number}A", few_shot[-1], asked_at[number], position)
        if self.num_head:
            parts.append(ContextPart("head", self.num_plain, len(self), position, HEAD_ID, HEAD_ID))
        return parts

    @property
    def num_plain(self) -> int:
        """Tokens without the head."""
        return len(self) - self.num_head

    @property
    def tokens(self) -> np.ndarray:
        """int64 [3, C]: of each token its part's segment id, the highest id that it sees beside that, and its
        position."""
        parts = np.array(
            [(p.segment, p.sees, p.position - p.start, p.stop - p.start) for p in self.parts], np.int64
        ).reshape(-1, 4)
        columns: np.ndarray = np.repeat(parts[:, :3], parts[:, 3], axis=0).T
        columns[2] += np.arange(len(self))
        return columns


def shared_context(prompt: Prompt, *, with_head: bool, continuous: bool) -> SharedContext:
    """The context of a prompt, and behind it the head of its paraphrases if that is part of it.

    Args:
        continuous: the positions of the method.
    """
    head = prompt.num_head if with_head else 0
    ids = prompt.context + prompt.segments[0][:head]
    return SharedContext(ids, head, prompt.few_shots, continuous and bool(prompt.few_shots))


def group_by_context(prompts: Sequence[Prompt], *, with_head: bool) -> dict[SharedContext, list[int]]:
    """The numbers of the prompts that share each context, at restarting positions."""
    found: dict[SharedContext, list[int]] = {}
    before: Prompt | None = None
    numbers: list[int] = []
    for number, prompt in enumerate(prompts):
        if before is None or not _is_alike(prompt, before):  # most are: to hash each context takes longer
            context = shared_context(prompt, with_head=with_head, continuous=False)
            numbers = found.setdefault(context, [])
        numbers.append(number)
        before = prompt
    return found


def _is_alike(one: Prompt, other: Prompt) -> bool:
    """Whether the contexts of two prompts are equal, with their heads."""
    head = one.num_head
    return (
        one.context == other.context
        and one.few_shots == other.few_shots
        and one.num_head == other.num_head
        and one.segments[0][:head] == other.segments[0][:head]
    )
