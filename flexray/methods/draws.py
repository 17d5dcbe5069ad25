"""Answers from some of the paraphrases: ordered draws, or all but one."""

from __future__ import annotations

from hashlib import blake2b

from flexray.config import MethodConfig
from flexray.masks.layout import AttentionScope, SharedPrefix
from flexray.methods.method import Fusion, Method
from flexray.prompts.prompt import Prompt

Subsets = tuple[tuple[int, ...], ...]
"""Indices of paraphrases, for each answer."""
_FUSIONS: dict[str, Fusion | None] = {"attention": None, "avg": "mean", "max": "max"}


def draws(config: MethodConfig) -> Method:
    """So many subsets of the paraphrases, an answer from each, fused inside attention or by logits; the most
    frequent answer counts. All share one prefill.

    With `draws: leave_one_out` the subsets are all paraphrases but the first, all but the second, and so on.
    """

    fusion = _FUSIONS[config.fusion]

    def subsets(prompt: Prompt) -> Subsets:
        return subsets_of(prompt.row_id, len(prompt.segments), config.draws, config.size, config.seed)

    def in_attention(prompt: Prompt) -> tuple[AttentionScope, ...]:
        return tuple(AttentionScope(subset=subset) for subset in subsets(prompt))

    def each_alone(prompt: Prompt) -> tuple[AttentionScope, ...]:
        return tuple(AttentionScope(index) for subset in subsets(prompt) for index in subset)

    def groups(prompt: Prompt) -> tuple[int, ...]:
        return tuple(number for number, subset in enumerate(subsets(prompt)) for _ in subset)

    return Method(
        name=config.name,
        prefix=SharedPrefix(apart=fusion is None),
        scopes=in_attention if fusion is None else each_alone,
        attends_to_one=fusion is not None,
        answers="samples",
        fusion=fusion,
        groups=None if fusion is None else groups,
        records_subsets=True,
    )


def subsets_of(row_id: str, count: int, draws: int | str, size: int, seed: int) -> Subsets:
    """The subsets of so many paraphrases: of the row and the seed only. Of fewer than `size` paraphrases each
    subset has all.

    >>> subsets_of("qa/test/1", 3, "leave_one_out", 5, 0)
    ((1, 2), (0, 2), (0, 1))
    >>> subsets_of("qa/test/1", 4, 2, 3, 0)
    ((3, 1, 2), (2, 0, 3))
    """
    if draws == "leave_one_out":
        return tuple(
            tuple(i for i in range(count) if i != left_out or count == 1) for left_out in range(count)
        )

    def key(draw: int, index: int) -> bytes:
        return blake2b(f"{seed}\n{draw}\n{index}\n{row_id}".encode(), digest_size=16).digest()

    return tuple(
        tuple(sorted(range(count), key=lambda index: key(draw, index))[:size]) for draw in range(int(draws))
    )
