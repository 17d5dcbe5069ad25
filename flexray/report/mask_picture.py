"""A mask to be drawn: what stands in its rows and columns, and the colours of its segments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from flexray.masks.stream import Segment, Stream

CONTEXT_COLOUR = "#8a99b0"
ANSWER_PREFIX_COLOUR = "#8f3b52"
ANSWER_COLOUR = "#d1495b"
PARAPHRASE_COLOURS = ("#1f7a8c", "#e8a33d", "#5a9e6f", "#7a5ea8", "#c77dae", "#3f6fb5", "#a8763e", "#94a83b")
_CONTEXT_NAME = re.compile(r"context|C\d+")
_ANSWER_NAME = re.compile(r"answer( \d+)?")


@dataclass(frozen=True, slots=True)
class MaskPicture:
    """A mask of L tokens.

    Raises:
        ValueError: the mask is not bool [L, L] with L >= 1, or the others do not cover L tokens.
    """

    mask: np.ndarray  # bool [L, L], rows are queries, columns keys
    segments: list[Segment]  # in order; none is empty
    labels: list[str]  # [L], the tokens' texts, which may hold anything
    positions: np.ndarray  # int [L], RoPE

    def __post_init__(self) -> None:
        L = len(self.mask)
        if self.mask.dtype != np.bool_ or self.mask.shape != (L, L) or not L:
            raise ValueError(f"a bool mask [L, L] is expected, found {self.mask.dtype} {self.mask.shape}")
        for what, count in (
            ("positions in segments", sum(map(len, self.segments))),
            ("labels", len(self.labels)),
            ("position ids", len(self.positions)),
        ):
            if count != L:
                raise ValueError(f"{count} {what} for a mask of {L} positions")

    @classmethod
    def of(cls, stream: Stream, text_of: Callable[[int], str]) -> MaskPicture:
        """A stream's mask. A sequence's answer prefix and answer are drawn as one segment, with the
        sequence's number if there are several.

        Args:
            text_of: the text of a token id.
        """
        several = len(stream.queries) > 1
        segments: list[Segment] = []
        for s in stream.segments:
            if s.name == "answer_prefix":
                continue
            if s.sequence is not None:
                start = segments[-1].stop
                name = f"answer {s.sequence + 1}" if several else "answer"
                s = Segment(name, start, s.stop, s.sequence)
            segments.append(s)
        labels = [text_of(i) for i in stream.token_ids.tolist()]
        return cls(stream.mask(), [s for s in segments if len(s)], labels, stream.positions)

    @property
    def colours(self) -> dict[str, str]:
        """Of each segment, by its name."""
        return segment_colours(segment.name for segment in self.segments)

    def counts(self) -> str:
        """How much of the causal triangle is visible, in words."""
        L = len(self.mask)
        causal, visible = L * (L + 1) // 2, int(self.mask.sum())
        return f"{L:,} tokens, {visible:,} of {causal:,} causal pairs visible ({visible / causal:.0%})"


def segment_colours(names: Iterable[str]) -> dict[str, str]:
    """A hex colour for each name, in order of first appearance.

    "context" and its copies "C1", "C2", ... share one colour, so do "answer" and "answer 1", "answer 2", ...;
    "answer_prefix" has its own, and all other names take the paraphrase colours in turn (more than eight
    paraphrases repeat them).
    """
    colours: dict[str, str] = {}
    paraphrases = 0
    for name in dict.fromkeys(names):
        if is_context(name):
            colours[name] = CONTEXT_COLOUR
        elif is_answer(name):
            colours[name] = ANSWER_COLOUR
        elif name == "answer_prefix":
            colours[name] = ANSWER_PREFIX_COLOUR
        else:
            colours[name] = PARAPHRASE_COLOURS[paraphrases % len(PARAPHRASE_COLOURS)]
            paraphrases += 1
    return colours


def is_context(name: str) -> bool:
    """Whether a segment is the context or a copy of it."""
    return _CONTEXT_NAME.fullmatch(name) is not None


def is_answer(name: str) -> bool:
    """Whether a segment is an answer, its answer prefix included."""
    return _ANSWER_NAME.fullmatch(name) is not None
