"""The text around a question, and where in it the parts of a prompt meet.

Parts are tokenised apart, as all rows share context and cue. Their ids must be those that they have in the
whole text, as the few-shots have them. Where the tokenizer joins what stands around a boundary ("?" and a
newline are one token of Llama 3's and Qwen's), the boundary has to stand elsewhere: it moves within the white
space that it lies in. No text changes by that.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence

from flexray.prompts.encoding import Piece, TextEncoder, boundaries

PROBES = (
    *string.ascii_letters,
    *string.digits,
    *('"It"', "(that)", "1 + 1", "é"),
    *(f"Is it{end}" for end in string.punctuation + "。？…»”"),
)
"""Questions that begin and end in all manners, to try boundaries with."""


class Frame:
    """A prompt's context and cue, in ids without BOS, and what a segment has beside its question.

    Args:
        before: the context's text, at least one piece. after: the cue's.
        prefix: a segment's text before its question. suffix: behind it.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        before: Sequence[Piece],
        prefix: str,
        suffix: str,
        after: Sequence[Piece],
    ):
        self._encoder = encoder
        self._before, self._after = tuple(before), tuple(after)
        self._prefix, self._suffix = prefix, suffix
        self.context = encoder.encode(*before)
        self.cue = encoder.encode(*after, behind=True)

    def segment(self, question: str) -> tuple[int, ...]:
        """Ids of a question in its segment."""
        behind = any(piece.text for piece in self._before)
        return self._encoder.encode(self._middle(question), behind=behind)

    def whole(self, question: str) -> tuple[int, ...]:
        """Ids of context, question and cue as one text."""
        return self._encoder.encode(*self._before, self._middle(question), *self._after)

    def agrees(self, question: str) -> bool:
        """Whether the ids of the parts are those of the whole text."""
        return self.context + self.segment(question) + self.cue == self.whole(question)

    def _middle(self, question: str) -> Piece:
        return Piece(self._prefix + question + self._suffix)


def make_frame(
    encoder: TextEncoder, before: Sequence[Piece], prefix: str, suffix: str, after: Sequence[Piece]
) -> Frame | None:
    """The first frame whose parts agree with the whole text for all probes; for most of them, if none does.

    The arguments are those of `Frame`, the boundaries where they are by the user's own template: there they
    stay, if they agree.

    Returns:
        None: the cue has no tokens, whatever is done.
    """
    best, most = None, -1
    for context_text, own_prefix in _places(before[-1].text, prefix):
        for own_suffix, cue_text in _places(suffix, after[0].text):
            context = (*before[:-1], before[-1]._replace(text=context_text))
            cue = (after[0]._replace(text=cue_text), *after[1:])
            frame = Frame(encoder, context, own_prefix, own_suffix, cue)
            agreeing = sum(map(frame.agrees, PROBES)) if frame.cue else -1
            if agreeing == len(PROBES):
                return frame
            if agreeing > most:
                best, most = frame, agreeing
    return best


def _places(left: str, right: str) -> Iterable[tuple[str, str]]:
    """Where the boundary of two texts may stand, the best place first."""
    return dict.fromkeys([(left, right), *boundaries(left, right)])
