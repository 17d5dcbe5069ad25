"""Which of a row's paraphrases are asked: so many manual and automatic ones, or some by index."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import takewhile

from flexray.config.data import FROM_TEMPLATES, DataConfig


def chooses(config: DataConfig) -> bool:
    """Whether a row's paraphrases have to be looked at one by one. Kinds with templates choose among these
    (see flexray.data.adapters.templates)."""
    limited = config.max_manual is not None or config.max_automatic is not None
    return config.paraphrases is not None or (limited and config.kind not in FROM_TEMPLATES)


def choose(
    texts: Sequence[str], num_manual: int, row: str, config: DataConfig
) -> tuple[list[int], int, int | None]:
    """The paraphrases of a row that are asked.

    Args:
        texts: all paraphrases, of which the first `num_manual` are manual.
        row: identifies the row; each row draws its own.

    Returns:
        Their indices, in the order in which they are asked; how many of the first are manual; and an index
        that `data.paraphrases` names and the row lacks, if any.
    """
    left = list(range(len(texts)))
    if config.kind not in FROM_TEMPLATES:
        seed = config.paraphrase_seed
        manual = drawn(texts[:num_manual], config.max_manual, row, seed)
        automatic = drawn(texts[num_manual:], config.max_automatic, row, seed)
        left = [*manual, *(num_manual + index for index in automatic)]
    if config.paraphrases is not None:
        lacking = next((index for index in config.paraphrases if index >= len(left)), None)
        if lacking is not None:
            return left, 0, lacking
        left = [left[index] for index in config.paraphrases]
    return left, sum(1 for _ in takewhile(lambda index: index < num_manual, left)), None


def drawn(texts: Sequence[str], most: int | None, row: str, seed: int | None) -> list[int]:
    """The indices of so many texts, in order. None: all.

    Args:
        seed: draw them for this row. None: the first.
    """
    if most is None or len(texts) <= most:
        return list(range(len(texts)))
    if seed is None:
        return list(range(most))
    # by digest instead of `random`: a new text changes only few rows, and a new Python version none
    by_digest = sorted(range(len(texts)), key=lambda i: sha256(f"{seed}/{row}/{texts[i]}".encode()).digest())
    return sorted(by_digest[:most])
