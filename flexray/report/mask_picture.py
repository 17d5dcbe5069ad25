"""A mask to be drawn, with its tokens, segments and colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flexray.masks.stream import Segment, Stream

CONTEXT_COLOUR, ANSWER_COLOUR = "#8a99b0", "#d1495b"
PARAPHRASE_COLOURS = ("#1f7a8c", "#e8a33d", "#5a9e6f", "#7a5ea8", "#c77dae", "#3f6fb5", "#a8763e", "#94a83b")


@dataclass(frozen=True, slots=True)
class MaskPicture:
    """A mask of L tokens."""

    mask: np.ndarray  # bool [L, L], rows are queries, columns keys
    segments: list[Segment]  # in order; none is empty
    labels: list[str]  # [L], the tokens' texts, which may hold anything
    positions: np.ndarray  # int [L], RoPE

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
                name = f"answer {s.sequence + 1}" if several else "answer"
                s = Segment(name, segments[-1].stop, s.stop, s.sequence)
            segments.append(s)
        labels = [text_of(i) for i in stream.token_ids.tolist()]
        return cls(stream.mask(), [s for s in segments if len(s)], labels, stream.positions)

    def counts(self) -> str:
        """How much of the causal triangle is visible, in words."""
        L = len(self.mask)
        causal, visible = L * (L + 1) // 2, int(self.mask.sum())
        return f"{L:,} tokens, {visible:,} of {causal:,} causal pairs visible ({visible / causal:.0%})"


def colour_of(name: str) -> str:
    """The hex colour of a segment, by its name. Copies and parts of the context have that of the context;
    more than eight paraphrases repeat theirs.

    >>> [colour_of(name) == CONTEXT_COLOUR for name in ("context", "C12", "F1P2", "C12.F1P2", "P1", "answer")]
    [True, True, True, True, False, False]
    """
    if name.startswith("answer"):
        return ANSWER_COLOUR
    if name.startswith("P"):
        return PARAPHRASE_COLOURS[(int(name[1:]) - 1) % len(PARAPHRASE_COLOURS)]
    return CONTEXT_COLOUR
