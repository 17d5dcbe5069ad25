"""The full mask of one sample, to be looked at: every token of the stream, context copies included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from flexray.masks.layout import ALL, CONTEXT_CODE, FIRST_BRANCH, Trunk, View, lay_out
from flexray.masks.visibility import KeyTables, QueryTables, dense_mask
from flexray.types import Prompt


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
        generated: how many tokens of the answer to add behind the cue (their ids are shown as -1).
    """
    copies, continuous = layout == "full_prompt", positions == "continuous"
    trunk = Trunk(copies and continuous, continuous, cross_attention)
    sample = lay_out(prompt, trunk, (View(),), max(1, generated))
    shape = sample.shape
    num_context = len(prompt.context)
    ids: list[int] = []
    places: list[int] = []
    codes: list[int] = []
    names: list[str] = []

    def add(tokens: list[int], at: list[int], code: int, name: str) -> None:
        ids.extend(tokens)
        places.extend(at)
        codes.extend([code] * len(tokens))
        names.extend([name] * len(tokens))

    if not copies:
        add(list(prompt.context), list(range(num_context)), CONTEXT_CODE, "context")
    first = 0
    for number, segment in enumerate(prompt.segments):
        part = shape.paraphrase_parts[number]
        if copies:
            start = int(shape.copy_slots[number]) if len(shape.copy_slots) else 0
            add(list(prompt.context), list(range(start, start + num_context)), part, f"C{number + 1}")
        own = slice(first, first := first + len(segment))
        add(sample.token_ids[own].tolist(), shape.positions[own].tolist(), part, f"P{number + 1}")
    add(sample.token_ids[first:].tolist(), shape.positions[first:].tolist(), FIRST_BRANCH, "answer")
    start = int(shape.answer_positions[0])
    add([-1] * generated, list(range(start, start + generated)), FIRST_BRANCH, "answer")

    code_L = torch.tensor(codes, dtype=torch.int32)
    order_L = torch.arange(len(ids), dtype=torch.int32)
    queries = QueryTables.zeros((1, len(ids)), code_L.device)
    queries.refresh(torch.where(code_L == FIRST_BRANCH, ALL, code_L), code_L, order_L, None)
    mask = dense_mask(queries, KeyTables(code_L, order_L), torch.arange(len(ids))[None])
    return MaskPicture(mask[0, 0].numpy(), np.asarray(ids), np.asarray(places), names)
