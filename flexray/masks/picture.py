"""The full mask of one sample, to be looked at: every token of the stream, context copies included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from flexray.masks.layout import (
    ALL_PARAPHRASES,
    CONTEXT_ID,
    FIRST_ANSWER,
    AttentionScope,
    SharedPrefix,
    lay_out,
)
from flexray.masks.visibility import KeyTables, QueryTables, dense_mask
from flexray.prompts.prompt import Prompt


@dataclass(frozen=True, slots=True)
class MaskPicture:
    """A sample's stream of L tokens, as the definition has it."""

    mask: np.ndarray  # bool [L, L], rows are queries, columns keys
    token_ids: np.ndarray  # int64 [L]
    positions: np.ndarray  # int64 [L]
    segments: list[str]  # [L], such as "context", "P1", "answer"


def draw_mask(
    prompt: Prompt,
    layout: Literal["shared_context", "full_prompt", "myriadlama"],
    positions: Literal["restart", "continuous"],
    generated: int = 0,
    *,
    cross_attention: bool = False,
) -> MaskPicture:
    """Evaluate the engine's own visibility rule on the whole stream of one sample.

    Args:
        generated: how many tokens of the answer to add behind the answer prefix (their ids are shown as -1).
    """
    copies, continuous = layout == "full_prompt", positions == "continuous"
    prefix = SharedPrefix(copies and continuous, continuous, cross_attention)
    packed = lay_out(prompt, prefix, (AttentionScope(),), generated)
    layout_ = packed.layout
    num_context = len(prompt.context)
    ids: list[int] = []
    places: list[int] = []
    segment_ids: list[int] = []
    names: list[str] = []

    def add(tokens: list[int], at: list[int], segment_id: int, name: str) -> None:
        ids.extend(tokens)
        places.extend(at)
        segment_ids.extend([segment_id] * len(tokens))
        names.extend([name] * len(tokens))

    if not copies:
        add(list(prompt.context), list(range(num_context)), CONTEXT_ID, "context")
    first = 0
    for number, segment in enumerate(prompt.segments):
        segment_id = layout_.paraphrase_segments[number]
        if copies:
            start = int(layout_.copy_slots[number]) if len(layout_.copy_slots) else 0
            add(list(prompt.context), list(range(start, start + num_context)), segment_id, f"C{number + 1}")
        own = slice(first, first := first + len(segment))
        add(packed.token_ids[own].tolist(), layout_.positions[own].tolist(), segment_id, f"P{number + 1}")
    add(packed.token_ids[first:].tolist(), layout_.positions[first:].tolist(), FIRST_ANSWER, "answer")
    start = int(layout_.answer_positions[0])
    add([-1] * generated, list(range(start, start + generated)), FIRST_ANSWER, "answer")

    segment_L = torch.tensor(segment_ids, dtype=torch.int32)
    index_L = torch.arange(len(ids), dtype=torch.int32)
    queries = QueryTables.zeros((1, len(ids)), segment_L.device)
    queries.refresh(
        torch.where(segment_L == FIRST_ANSWER, ALL_PARAPHRASES, segment_L), segment_L, index_L, None
    )
    mask = dense_mask(queries, KeyTables(segment_L, index_L), torch.arange(len(ids))[None])
    return MaskPicture(mask[0, 0].numpy(), np.asarray(ids), np.asarray(places), names)
