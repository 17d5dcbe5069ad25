"""The text of a prompt before the question, instruction and few-shots, and its token ids.

A few-shot's paraphrases are segments as a row's are, with the boundaries of `flexray.prompts.frame` before
and behind them. All other text between is tokenised as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flexray.config import PromptConfig
from flexray.prompts.encoding import TextEncoder, TextPiece
from flexray.prompts.frame import Frame, make_frame


@dataclass(slots=True)
class ContextText:
    """Pieces of text in order."""

    pieces: list[TextPiece] = field(default_factory=list)
    """Those since the last question that is asked in several paraphrases, or all."""
    asked: list[tuple[list[TextPiece], tuple[str, ...]]] = field(default_factory=list)
    """Before that, for each such question: the pieces before it, and its paraphrases."""

    def ask(self, paraphrases: Sequence[str]) -> None:
        """Go on with a question in several paraphrases, without the template's text around it."""
        self.asked.append((self.pieces, tuple(paraphrases)))
        self.pieces = []


def plain_text(prompt: PromptConfig, prefix: str, suffix: str) -> tuple[ContextText, list[TextPiece]]:
    """The text before the question, and the answer prefix behind it, without a chat template.

    Args:
        prefix, suffix: the text of a segment before and after its question.
    """
    text = ContextText()
    written = prompt.instruction
    for shot in prompt.few_shots:
        asked = [question.strip() for question in shot.asked]
        if len(asked) > 1:
            text.pieces.append(TextPiece(written))
            text.ask(asked)
            written = ""
        else:
            written += prefix + asked[0] + suffix
        written += f"{prompt.answer_prefix} {shot.answer.strip()}"
    text.pieces.append(TextPiece(written))
    return text, [TextPiece(prompt.answer_prefix)]


@dataclass(frozen=True, slots=True)
class Context:
    """The ids of a context without BOS, and the frame of the question behind it."""

    token_ids: tuple[int, ...]
    few_shots: tuple[tuple[int, ...], ...]  # see Prompt
    frame: Frame
    first_ids: tuple[int, ...]
    """With only the first of each few-shot's paraphrases."""
    earlier: tuple[TextPiece, ...]
    """Their text, up to where the frame's begins."""


def make_context(
    encoder: TextEncoder, text: ContextText, prefix: str, suffix: str, after: Sequence[TextPiece]
) -> Context | None:
    """Args: those of `make_frame`, with the text of the whole context. None: as `make_frame`."""
    ids: tuple[int, ...] = ()
    first_ids: tuple[int, ...] = ()
    few_shots: list[tuple[int, ...]] = []
    earlier: tuple[TextPiece, ...] = ()
    before = [pieces for pieces, _ in text.asked] + [text.pieces]
    behind = before[0]
    for (_, paraphrases), following in zip(text.asked, before[1:], strict=True):
        frame = make_frame(encoder, behind, prefix, suffix, following, follows=bool(earlier))
        if frame is None:
            return None
        ids += frame.context
        bounds = [len(ids)]
        for paraphrase in paraphrases:
            ids += frame.segment(paraphrase)
            bounds.append(len(ids))
        few_shots.append(tuple(bounds))
        first_ids += frame.context + frame.segment(paraphrases[0])
        earlier += (*frame.before, frame.middle(paraphrases[0]))
        behind = list(frame.after)
    last = make_frame(encoder, behind, prefix, suffix, after, follows=bool(earlier))
    if last is None:
        return None
    return Context(ids + last.context, tuple(few_shots), last, first_ids + last.context, earlier)
