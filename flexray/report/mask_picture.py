"""A mask to be drawn, with its tokens and segments and their colours."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from flexray.masks.stream import Segment, Stream

COLOURS = {"context": "#8a99b0", "copy": "#8a99b0", "answer_prefix": "#8f3b52", "answer": "#d1495b"}
PARAPHRASE_COLOURS = ("#1f7a8c", "#e8a33d", "#5a9e6f", "#7a5ea8", "#c77dae", "#3f6fb5", "#a8763e", "#94a83b")


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


def segment_kind(name: str) -> str:
    """What a segment is, by its name; parts of the context, such as a few-shot's paraphrase, are context.

    >>> [segment_kind(name) for name in ("context", "C12", "P1", "answer_prefix", "answer", "answer 2")]
    ['context', 'copy', 'paraphrase', 'answer_prefix', 'answer', 'answer']
    >>> [segment_kind(name) for name in ("F1P2", "F1A", "C12.F1P2")]
    ['context', 'context', 'copy']
    """
    stem = name.partition(".")[0].rstrip(" 0123456789")
    kinds = {"C": "copy", "P": "paraphrase"}
    return "context" if stem[0] == "F" else kinds.get(stem, stem)


def segment_colours(names: Iterable[str]) -> dict[str, str]:
    """A hex colour for each name, in order of first appearance; more than eight paraphrases repeat theirs."""
    paraphrase_colours = itertools.cycle(PARAPHRASE_COLOURS)
    return {
        name: COLOURS.get(segment_kind(name)) or next(paraphrase_colours) for name in dict.fromkeys(names)
    }
