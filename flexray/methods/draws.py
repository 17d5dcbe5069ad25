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

    def subsets(prompt: Prompt) -> Subsets:
        return subsets_of(prompt.row_id, len(prompt.segments), config.draws, config.size, config.seed)

    def fused(prompt: Prompt) -> tuple[AttentionScope, ...]:
        return tuple(AttentionScope(subset=subset) for subset in subsets(prompt))

    def each_alone(prompt: Prompt) -> tuple[AttentionScope, ...]:
        return tuple(AttentionScope(index) for subset in subsets(prompt) for index in subset)

    def groups(prompt: Prompt) -> tuple[int, ...]:
        return tuple(number for number, subset in enumerate(subsets(prompt)) for _ in subset)

    def weights(prompt: Prompt) -> tuple[float, ...]:
        return tuple(1 / len(subset) for subset in subsets(prompt) for _ in subset)

    fusion = _FUSIONS[config.fusion]
    if fusion is None:
        return Method(
            name=config.name,
            prefix=SharedPrefix(apart=True),
            scopes=fused,
            answers="samples",
            subsets=subsets,
        )
    return Method(
        name=config.name,
        prefix=SharedPrefix(),
        scopes=each_alone,
        attends_to_one=True,
        answers="samples",
        fusion=fusion,
        weights=weights,
        groups=groups,
        subsets=subsets,
    )


def subsets_of(
    row_id: str, count: int, draws: int | str, size: int, seed: int
) -> tuple[tuple[int, ...], ...]:
    """The subsets of so many paraphrases: of the row and the seed only. Of fewer than `size` paraphrases each
    subset has all.

    >>> subsets_of("qa/test/1", 3, "leave_one_out", 5, 0)
    ((1, 2), (0, 2), (0, 1))
    >>> subsets_of("qa/test/1", 4, 2, 3, 0)
    ((2, 0, 1), (3, 2, 0))
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
