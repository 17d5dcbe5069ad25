"""The text around a question, and the boundaries between the segments of a prompt.

Segments are tokenised separately, because all rows share context and answer prefix. Their ids must be the
same as in the whole text, since the few-shots are tokenised as one. If the tokenizer joins the characters at
a boundary (for Llama 3 and Qwen "?" and a newline are one token), the boundary moves within the white space
around it. The text does not change.
"""

from __future__ import annotations

import functools
import itertools
import string
from collections.abc import Iterable, Sequence

from flexray.prompts.encoding import TextEncoder, TextPiece, UnencodableError, boundaries

PROBES = (
    *string.ascii_letters,
    *string.digits,
    *('"It"', "(that)", "1 + 1", "é"),
    *(f"Is it{end}" for end in string.punctuation + "。？…»”"),
)
"""Questions that begin and end in all manners, to try boundaries with."""


class Frame:
    """A prompt's context and answer prefix, as ids without BOS, and what a segment has around its question.

    Args:
        before: the text of the context, at least one piece.
        prefix: the text of a segment before its question.
        suffix: the text of a segment after its question.
        after: the text of the answer prefix, at least one piece.
        follows: whether other text comes before these.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        before: Sequence[TextPiece],
        prefix: str,
        suffix: str,
        after: Sequence[TextPiece],
        *,
        follows: bool = False,
    ):
        self._encoder, self._follows = encoder, follows
        self.before, self.after = tuple(before), tuple(after)
        self._prefix, self._suffix = prefix, suffix
        self.context = encoder.encode(*before, follows=follows)
        self.answer_prefix = encoder.encode(*after, follows=True)

    def segment(self, question: str) -> tuple[int, ...]:
        """Ids of a question in its segment."""
        follows = self._follows or any(piece.text for piece in self.before)
        return self._encoder.encode(self.middle(question), follows=follows)

    def answer(self, text: str) -> tuple[int, ...]:
        """Ids of an answer behind the answer prefix, with the white space before it."""
        whole, n = self._encoder.encode(*self.after, TextPiece(text), follows=True), len(self.answer_prefix)
        if whole[:n] == self.answer_prefix:
            return whole[n:]
        return self._encoder.encode(TextPiece(text), follows=True)  # the tokenizer has joined the two

    @functools.cached_property
    def head(self) -> tuple[int, ...]:
        """The ids that a segment begins with whatever its question is, as far as the probes can tell."""
        columns = zip(*filter(None, map(self._probe, PROBES)), strict=False)
        return tuple(ids[0] for ids in itertools.takewhile(lambda ids: len(set(ids)) == 1, columns))

    def _probe(self, question: str) -> tuple[int, ...]:
        """As `segment`; () if the tokenizer refuses the question."""
        try:
            return self.segment(question)
        except UnencodableError:
            return ()

    def whole(self, question: str, earlier: Sequence[TextPiece] = ()) -> tuple[int, ...]:
        """Ids of context, question and answer prefix as one text, with the text that comes before these."""
        pieces = (*earlier, *self.before, self.middle(question), *self.after)
        return self._encoder.encode(*pieces, follows=self._follows and not earlier)

    def agrees(self, question: str) -> bool:
        """Whether the ids of the segments together are those of the whole text."""
        try:
            return self.context + self.segment(question) + self.answer_prefix == self.whole(question)
        except UnencodableError:
            return True  # no row can ask it

    def middle(self, question: str) -> TextPiece:
        """The text of a question in its segment."""
        return TextPiece(self._prefix + question + self._suffix)


def make_frame(
    encoder: TextEncoder,
    before: Sequence[TextPiece],
    prefix: str,
    suffix: str,
    after: Sequence[TextPiece],
    *,
    follows: bool = False,
) -> Frame | None:
    """The first frame that agrees with the whole text for all probes, else the one that does for most.

    Args: those of `Frame`, with the boundaries of the user's template. These are tried first.

    Returns:
        None if the answer prefix has no tokens, wherever its boundary is.
    """
    best, most = None, -1
    for context_text, own_prefix in _places(before[-1].text, prefix):
        for own_suffix, answer_text in _places(suffix, after[0].text):
            context = (*before[:-1], before[-1]._replace(text=context_text))
            answer_prefix = (after[0]._replace(text=answer_text), *after[1:])
            frame = Frame(encoder, context, own_prefix, own_suffix, answer_prefix, follows=follows)
            agreeing = sum(map(frame.agrees, PROBES)) if frame.answer_prefix else -1
            if agreeing == len(PROBES):
                return frame
            if agreeing > most:
                best, most = frame, agreeing
    return best


def _places(left: str, right: str) -> Iterable[tuple[str, str]]:
    """The possible boundaries between two texts, the best first."""
    return dict.fromkeys([(left, right), *boundaries(left, right)])
