"""A request's slots as a few runs, so that those of a whole batch are handled in vectors.

A run is consecutive slots of one owner, whose tokens stand at consecutive positions: a copy of the context, a
paraphrase or a part of some that they share, an answer prefix, or the tokens to be generated behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FIRST, LAST, SLOT, LENGTH, POSITION, VISIBLE_FIRST, VISIBLE_LAST, PREFILLED = range(8)
"""The columns of a table of runs: the segments that a run belongs to, from FIRST to LAST; its first SLOT; its
LENGTH; the RoPE POSITION of its first token; the segments that its tokens see beside their own; and whether
its tokens are PREFILLED (1), or copied or generated (0)."""
Run = tuple[int, int, int, int, int, int, int, int]


def tabulate(tables: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Many requests' runs in one table, int64 [R, 8], and the index of each run's request, int64 [R]."""
    return np.concatenate(tables), np.repeat(np.arange(len(tables)), [len(runs) for runs in tables])


def expand(runs: np.ndarray) -> np.ndarray:
    """Runs, int64 [R, 8], token by token: int64 [sum of LENGTH, 8], each with its own SLOT and POSITION."""
    lengths = runs[:, LENGTH]
    tokens = np.repeat(runs, lengths, axis=0)
    tokens[:, [SLOT, POSITION]] += count_each(lengths)[:, None]
    return tokens


def count_each(lengths: np.ndarray) -> np.ndarray:
    """The numbers from 0 below each length, one after the other.

    >>> count_each(np.array([2, 0, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    numbers: np.ndarray = np.arange(len(starts)) - starts
    return numbers
