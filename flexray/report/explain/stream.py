"""One sample as one stream of tokens, with all its branches: what a dense pass runs, token by token.

    [context] [P1] .. [PN]  [answer prefix][answer of branch 0]  [answer prefix][answer of branch 1] ..

Where each token stands is the engine's own layout (`flexray.masks.layout`), and who sees whom is its own
rule (`flexray.masks.visibility`). There is no pool, no packing and no rotated key: copies of the context are
tokens like others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from flexray.masks.layout import CONTEXT_ID, AttentionScope, SharedPrefix, lay_out
from flexray.masks.picture import MaskPicture
from flexray.masks.runs import FIRST, POSITION, SLOT, VISIBLE_FIRST, VISIBLE_LAST
from flexray.masks.visibility import KeyTables, QueryTables, dense_mask
from flexray.prompts.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Region:
    """Consecutive tokens [start, stop) of one part: the context or a copy of it, a paraphrase, a branch's
    answer prefix, or its answer (empty before there is one)."""

    name: str  # "context", "C1", "P1", "answer prefix", "answer"
    branch: int | None  # whose answer prefix or answer
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Stream:
    """S tokens in stream order. Codes: flexray.masks.layout, with row number 0."""

    ids: np.ndarray  # int64 [S]
    positions: np.ndarray  # int64 [S], RoPE
    seen: np.ndarray  # int64 [2, S], codes of the first and the last paraphrase that a token sees
    own: np.ndarray  # int64 [S], code of its own part
    order: np.ndarray  # int64 [S], ascending
    biases: np.ndarray  # float32 [3, S], against context, head and paraphrases
    regions: tuple[Region, ...]
    queries: tuple[np.ndarray, ...]  # [B] of int64 [T], whose logits give an answer's 1st, 2nd .. token

    def __len__(self) -> int:
        return len(self.ids)

    def tables(self, device: torch.device, start: int, stop: int) -> tuple[QueryTables, KeyTables]:
        """The mask's tables: tokens [start, stop) as queries, all S as keys."""
        seen, own, order = (
            torch.from_numpy(column).to(device, torch.int32) for column in (self.seen, self.own, self.order)
        )
        biases = torch.from_numpy(self.biases).to(device)
        part = slice(start, stop)
        queries = QueryTables.zeros((1, stop - start), device)
        queries.refresh(seen[:, part], own[part], order[part], biases[:, part])
        return queries, KeyTables.of(own, own, order)

    def picture(self) -> MaskPicture:
        """Its mask, to be looked at. A branch's answer prefix and answer are one segment, with a number if
        there are several branches."""
        S, several = len(self), len(self.queries) > 1
        queries, keys = self.tables(torch.device("cpu"), 0, S)
        names: list[str] = []
        for region in self.regions:
            name = region.name
            if region.branch is not None:
                name = f"answer {region.branch + 1}" if several else "answer"
            names += [name] * (region.stop - region.start)
        mask = dense_mask(queries, keys, torch.arange(S)[None])[0, 0]
        return MaskPicture(mask.numpy(), self.ids, self.positions, names)

    def membership(self) -> Tensor:
        """float32 [S, R]: 1 where a token is of a region."""
        member = torch.zeros(len(self), len(self.regions))
        for number, region in enumerate(self.regions):
            member[region.start : region.stop, number] = 1
        return member


def make_stream(
    prompt: Prompt, prefix: SharedPrefix, scopes: tuple[AttentionScope, ...], answers: Sequence[Sequence[int]]
) -> Stream:
    """Lay a prompt out with the beginnings of its branches' answers.

    Args:
        answers: [B], for each branch the generated tokens that it goes on from. With n of them it has n + 1
            queries.
    """
    layout = lay_out(prompt, prefix, scopes, max(map(len, answers))).layout
    tokens, parts = layout.tokens, _Parts()
    if layout.sees_context:
        parts.add("context", None, prompt.context, 0, (CONTEXT_ID, CONTEXT_ID), CONTEXT_ID, 0)
    first = 0  # own token that the next part begins with
    for number, segment in enumerate(prompt.segments):
        part = layout.paraphrase_segments[number]
        if not layout.sees_context:
            slot = int(layout.copy_slots[number])
            parts.add(
                f"C{number + 1}",
                None,
                prompt.context,
                slot,
                (part, part),
                part,
                layout.first_causal_index + slot,
            )
        parts.add(
            f"P{number + 1}",
            None,
            segment,
            int(tokens[first, POSITION]),
            (part, part),
            part,
            layout.first_causal_index + int(tokens[first, SLOT]),
        )
        first += len(segment)
    queries = []
    for branch, answer in enumerate(answers):
        end = tokens[layout.logits_indices[branch]]
        seen, own = (int(end[VISIBLE_FIRST]), int(end[VISIBLE_LAST])), int(end[FIRST])
        biases = np.array(layout.biases[branch], dtype=np.float32)
        position = layout.answer_positions[branch] - len(prompt.answer_prefix)
        order = layout.first_causal_index + layout.answer_slots[branch] - len(prompt.answer_prefix)
        parts.add("answer_prefix", branch, prompt.answer_prefix, position, seen, own, order, biases)
        queries.append(np.arange(parts.size - 1, parts.size + len(answer)))
        parts.add(
            "answer",
            branch,
            answer,
            position + len(prompt.answer_prefix),
            seen,
            own,
            order + len(prompt.answer_prefix),
            biases,
        )
    ids, positions, seen_first, seen_last, own_codes, orders = np.concatenate(parts.columns, axis=1)
    seen_codes = np.stack([seen_first, seen_last])
    biases = np.concatenate(parts.biases, axis=1)
    regions = tuple(parts.regions)
    return Stream(ids, positions, seen_codes, own_codes, orders, biases, regions, tuple(queries))


@dataclass(slots=True)
class _Parts:
    """The stream as far as it is written."""

    columns: list[np.ndarray] = field(default_factory=list)
    biases: list[np.ndarray] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    size: int = 0

    def add(
        self,
        name: str,
        branch: int | None,
        ids: Sequence[int],
        position: int,
        seen: tuple[int, int],
        own: int,
        order: int,
        biases: np.ndarray | None = None,
    ) -> None:
        """Add a part whose tokens stand at consecutive positions, and in that order."""
        n = len(ids)
        index = np.arange(n, dtype=np.int64)
        self.columns.append(
            np.stack(
                [
                    np.asarray(ids, dtype=np.int64),
                    position + index,
                    *(np.full(n, code) for code in seen),
                    np.full(n, own),
                    order + index,
                ]
            )
        )
        biases = np.zeros(3, dtype=np.float32) if biases is None else biases
        self.biases.append(np.repeat(biases[:, None], n, axis=1))
        self.regions.append(Region(name, branch, self.size, self.size + n))
        self.size += n
