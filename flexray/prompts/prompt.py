"""The token ids of one question, segment by segment."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

MAX_PARAPHRASES = 2047
"""The most paraphrases of a question that the mask can isolate (see flexray.masks.layout)."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids of one question: context, N isolated segments, then the answer prefix."""

    context: tuple[int, ...]
    segments: tuple[tuple[int, ...], ...]
    answer_prefix: tuple[int, ...]
    num_manual: int = 0  # how many of the first segments are manual templates
    confidences: tuple[float, ...] | None = None  # of each segment
    row_id: str = ""  # seeds what is drawn at random for this sample
    num_head: int = 0  # every segment of all rows begins with the same so many tokens of the template
    few_shots: tuple[tuple[int, ...], ...] = ()
    """Of each few-shot that is asked in several paraphrases: the token of the context that each of them
    begins at, and the one behind the last, where its answer begins."""
    candidates: tuple[tuple[int, ...], ...] = ()
    """Answers to choose among, as they follow the answer prefix. (): the answer is generated."""

    def __post_init__(self) -> None:
        if not self.segments or any(not s for s in self.segments):
            raise ValueError("a prompt needs at least one segment, and no segment may be empty")
        if self.num_head:
            heads = {segment[: self.num_head] for segment in self.segments}
            if len(heads) > 1 or min(map(len, self.segments)) <= self.num_head:
                raise ValueError("all segments must begin with the same head, and none may be the head alone")
        bounds = [bound for few_shot in self.few_shots for bound in few_shot]
        if any(b <= a for a, b in pairwise([-1, *bounds, len(self.context)])):
            raise ValueError("few-shots must be in order, and none of their parts may be empty")
        if not all(self.candidates):
            raise ValueError("no candidate may be empty")
        if not self.answer_prefix:
            raise ValueError(
                "a prompt needs at least one answer prefix token: the first answer token is fused from it"
            )

    @property
    def num_beside(self) -> int:
        """Tokens of the context that stand beside others, where positions restart: by so many it has fewer
        positions than tokens, as each few-shot's answer begins behind the longest of its paraphrases."""
        return sum(
            few_shot[-1] - few_shot[0] - max(stop - start for start, stop in pairwise(few_shot))
            for few_shot in self.few_shots
        )

    @property
    def num_tokens(self) -> int:
        """Tokens of context, segments and answer prefix together: the output's `prompt_tokens`."""
        return len(self.context) + sum(map(len, self.segments)) + len(self.answer_prefix)
