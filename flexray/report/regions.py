"""The regions of a sample's stream, and their colours: the same in the terminal, in the PNG and in HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONTEXT_COLOUR = "#8a99b0"
CUE_COLOUR = "#8f3b52"
ANSWER_COLOUR = "#d1495b"
PARAPHRASE_COLOURS = ("#1f7a8c", "#e8a33d", "#5a9e6f", "#7a5ea8", "#c77dae", "#3f6fb5", "#a8763e", "#94a83b")
_CONTEXT_NAME = re.compile(r"context|C\d+")
_ANSWER_NAME = re.compile(r"answer( \d+)?")


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive positions [start, stop) of one segment."""

    name: str
    start: int
    stop: int


def find_runs(segments: Sequence[str]) -> list[Run]:
    """The runs of equal names, in stream order.

    >>> find_runs(["context", "context", "P1"])
    [Run(name='context', start=0, stop=2), Run(name='P1', start=2, stop=3)]
    """
    borders = [i for i in range(len(segments)) if i == 0 or segments[i] != segments[i - 1]]
    return [Run(segments[a], a, b) for a, b in zip(borders, [*borders[1:], len(segments)], strict=True)]


def region_colours(segments: Sequence[str]) -> dict[str, str]:
    """A hex colour for each name, in order of first appearance.

    "context" and its copies "C1", "C2", ... share one colour, so do "answer" and "answer 1", "answer 2", ...;
    "answer prefix" has its own, and all other names take the paraphrase colours in turn (more than eight
    paraphrases repeat them).
    """
    colours: dict[str, str] = {}
    paraphrases = 0
    for name in dict.fromkeys(segments):
        if is_context(name):
            colours[name] = CONTEXT_COLOUR
        elif is_answer(name):
            colours[name] = ANSWER_COLOUR
        elif name == "answer_prefix":
            colours[name] = CUE_COLOUR
        else:
            colours[name] = PARAPHRASE_COLOURS[paraphrases % len(PARAPHRASE_COLOURS)]
            paraphrases += 1
    return colours


def is_context(name: str) -> bool:
    """Whether a region is the context or a copy of it."""
    return _CONTEXT_NAME.fullmatch(name) is not None


def is_answer(name: str) -> bool:
    """Whether a region is an answer, answer prefix included."""
    return _ANSWER_NAME.fullmatch(name) is not None


def check_mask(mask: np.ndarray, segments: Sequence[str]) -> None:
    """Raises ValueError unless `mask` is bool [L, L] with L >= 1 and one segment name for each position."""
    if mask.dtype != np.bool_ or mask.ndim != 2 or mask.shape[0] != mask.shape[1] or not mask.size:
        raise ValueError(f"a bool mask [L, L] is expected, found {mask.dtype} {list(mask.shape)}")
    if len(segments) != len(mask):
        raise ValueError(f"{len(segments)} segment names for a mask of {len(mask)} positions")


def count_pairs(mask: np.ndarray) -> str:
    """How much of the causal triangle is visible, in words."""
    L = len(mask)
    causal, visible = L * (L + 1) // 2, int(mask.sum())
    return f"{L:,} tokens, {visible:,} of {causal:,} causal pairs visible ({visible / causal:.0%})"


def one_line(text: str) -> str:
    r"""A token's text on one line: "\n" and other control characters as escapes.

    >>> one_line(" a\n")
    ' a\\n'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
