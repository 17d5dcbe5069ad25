"""The full mask of one sample, to be looked at: every token of the stream, context copies included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from flexray.masks.layout import ANSWER, CONTEXT, NOBODY, Layout, Positions, lay_out
from flexray.masks.visibility import KeyTables, QueryTables, dense_mask
from flexray.types import Prompt


@dataclass(frozen=True, slots=True)
class MaskPicture:
    """A sample's stream of L tokens, as the definition has it."""

    mask: np.ndarray  # bool [L, L], rows are queries, columns keys
    token_ids: np.ndarray  # int64 [L]
    positions: np.ndarray  # int64 [L]
    segments: list[str]  # [L], such as "context", "P1", "answer"


def draw_mask(prompt: Prompt, layout: Layout, positions: Positions, generated: int = 0) -> MaskPicture:
    """Evaluate the engine's own visibility rule on the whole stream of one sample.

    Args:
        generated: how many tokens of the answer to add behind the cue (their ids are shown as -1).
    """
    sample = lay_out(prompt, layout, positions)
    num_context = len(prompt.context)
    ids: list[int] = []
    places: list[int] = []
    segments: list[int] = []
    names: list[str] = []

    def add(tokens: list[int], at: list[int], segment: int, name: str) -> None:
        ids.extend(tokens)
        places.extend(at)
        segments.extend([segment] * len(tokens))
        names.extend([name] * len(tokens))

    copies = layout == "full_prompt"
    if not copies:
        add(list(prompt.context), list(range(num_context)), CONTEXT, "context")
    for number in range(1, len(prompt.segments) + 1):
        if copies:
            start = int(sample.copy_offsets[number - 1]) if len(sample.copy_offsets) else 0
            add(list(prompt.context), list(range(start, start + num_context)), number, f"C{number}")
        own = sample.segments == number
        add(sample.token_ids[own].tolist(), sample.positions[own].tolist(), number, f"P{number}")
    own = sample.segments == ANSWER
    add(sample.token_ids[own].tolist(), sample.positions[own].tolist(), ANSWER, "answer")
    later = range(sample.answer_position, sample.answer_position + generated)
    add([-1] * generated, list(later), ANSWER, "answer")

    L = len(ids)
    segment_L = torch.tensor(segments, dtype=torch.int32)
    order_L = torch.arange(L, dtype=torch.int32)
    sample_L = torch.where(segment_L == CONTEXT, NOBODY, 0).to(torch.int32)
    queries = QueryTables(sample_L[None], segment_L[None], order_L[None], torch.zeros(1, L))
    mask = dense_mask(queries, KeyTables(sample_L, segment_L, order_L), torch.arange(L)[None])
    return MaskPicture(mask[0, 0].numpy(), np.asarray(ids), np.asarray(places), names)
