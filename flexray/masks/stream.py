"""One prompt and its answers as one stream of tokens: to draw its mask, or to run it by dense attention.

    [context] [P1] .. [PN]  [answer prefix][answer of sequence 0]  [answer prefix][answer of sequence 1] ..

Positions and segments come from the engine's layout (`flexray.masks.layout`), and the mask from its rule
(`flexray.masks.visibility`). Nothing is cached, packed or rotated: copies of the context are written out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from flexray.masks.layout import (
    ALL_MEMBERS,
    FIRST_ANSWER,
    NUM_BIASES,
    SEGMENT_BITS,
    AttentionScope,
    SharedPrefix,
    lay_out,
)
from flexray.masks.runs import FIRST, POSITION, VISIBLE_FIRST, VISIBLE_LAST
from flexray.masks.shared_context import shared_context
from flexray.masks.visibility import KeyTables, QueryTables, dense_mask
from flexray.prompts.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive tokens [start, stop) of a stream."""

    name: str  # "context", "C1" (a copy of it), "P1", "answer_prefix", "answer"; parts of the context: "F1P1"
    start: int
    stop: int
    sequence: int | None = None  # whose answer prefix or answer; None: part of the shared prefix

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Stream:
    """S tokens in causal order.

    Segment ids: of the shared context those of flexray.masks.shared_context; of answers those of request 0;
    a paraphrase, which may have a copy of the context's parts, has ids as if it were a request.
    """

    token_ids: np.ndarray  # int64 [S]
    positions: np.ndarray  # int64 [S], RoPE
    visible: np.ndarray  # int64 [2, S], segment ids of the first and the last paraphrase that a token sees
    segment_ids: np.ndarray  # int64 [S], of its own segment
    biases: np.ndarray  # float32 [NUM_BIASES, S], as QueryTables has them
    members: np.ndarray  # int64 [S], likewise
    segments: tuple[Segment, ...]

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def queries(self) -> list[np.ndarray]:
        """[B] of int64 [T]: for each sequence the tokens whose logits choose its answer's tokens."""
        return [np.arange(s.start - 1, s.stop - 1) for s in self.segments if s.name == "answer"]

    def tables(self, device: torch.device, start: int, stop: int) -> tuple[QueryTables, KeyTables]:
        """The mask's tables: tokens [start, stop) as queries, all S as keys."""
        columns = np.stack([*self.visible, self.segment_ids, np.arange(len(self))])
        first, last, own, causal_index = torch.from_numpy(columns).to(device, torch.int32)
        visible = torch.stack([first, last])
        biases = torch.from_numpy(self.biases).to(device)
        part = slice(start, stop)
        queries = QueryTables.zeros((1, stop - start), device)
        members = torch.from_numpy(self.members).to(device)
        queries.refresh(visible[:, part], own[part], causal_index[part], biases[:, part], members[part])
        return queries, KeyTables.of(own, own, causal_index)

    def mask(self) -> np.ndarray:
        """bool [S, S]: which query (row) sees which key (column)."""
        tables = self.tables(torch.device("cpu"), 0, len(self))
        mask: np.ndarray = dense_mask(*tables, torch.arange(len(self))[None])[0, 0].numpy()
        return mask


def make_stream(
    prompt: Prompt, prefix: SharedPrefix, scopes: tuple[AttentionScope, ...], answers: Sequence[Sequence[int]]
) -> Stream:
    """Lay a prompt out with its answers, or with the beginnings of answers.

    Args:
        prefix: may have copies that restart at position 0, too, which the engine never makes.
        answers: for each scope the token ids of its answer.
    """
    layout = lay_out(prompt, prefix, scopes, 1).layout
    context = shared_context(prompt, with_head=False, continuous=prefix.continuous)
    parts = context.parts
    of_token = layout.tokens
    segments: list[Segment] = []
    columns: list[np.ndarray] = []

    def add(
        name: str,
        ids: Sequence[int],
        position: int,
        visible: tuple[int, int],
        own: int,
        sequence: int | None = None,
    ) -> None:
        start = segments[-1].stop if segments else 0
        segments.append(Segment(name, start, start + len(ids), sequence))
        positions = position + np.arange(len(ids))
        columns.append(np.stack(np.broadcast_arrays(np.asarray(ids, np.int64), positions, *visible, own)))

    if layout.sees_context:
        for part in parts:
            ids = prompt.context[part.start : part.stop]
            add(part.name, ids, part.position, (part.segment, part.sees), part.segment)
    first = 0  # the paraphrase's first token in the layout
    for index, (segment, tokens) in enumerate(zip(layout.paraphrase_segments, prompt.segments, strict=True)):
        begin, own = segment << SEGMENT_BITS, segment << SEGMENT_BITS | FIRST_ANSWER - 64 | segment & 63
        if not layout.sees_context:
            copy = int(layout.copy_slots[index]) if prefix.continuous else 0
            lowest = parts[0].segment
            assert own - begin > len(parts), f"{len(parts)} parts of the context, too many to draw copies"
            for part in parts:
                name = f"C{index + 1}" if part is parts[0] else f"C{index + 1}.{part.name}"
                ids = prompt.context[part.start : part.stop]
                sees = (begin, begin + part.sees - lowest)
                add(name, ids, copy + part.position, sees, begin + part.segment - lowest)
        add(f"P{index + 1}", tokens, int(of_token[first, POSITION]), (begin, own), own)
        first += len(tokens)
    for sequence, answer in enumerate(answers):
        last = of_token[layout.logits_indices[sequence]]  # of the answer prefix
        visible, own = _ids_of(int(last[VISIBLE_FIRST]), int(last[VISIBLE_LAST])), int(last[FIRST])
        position = layout.answer_positions[sequence]
        prefix_position = position - len(prompt.answer_prefix)
        add("answer_prefix", prompt.answer_prefix, prefix_position, visible, own, sequence)
        add("answer", answer, position, visible, own, sequence)

    biases = np.zeros((NUM_BIASES, segments[-1].stop), np.float32)
    members = np.full(segments[-1].stop, ALL_MEMBERS, np.int64)
    for s in segments:
        if s.sequence is not None:
            biases[:, s.start : s.stop] = np.asarray(layout.biases[s.sequence])[:, None]
            if layout.members is not None:
                members[s.start : s.stop] = layout.members[s.sequence]
    token_ids, positions, first_ids, last_ids, own_ids = np.concatenate(columns, axis=1)
    visible_ids = np.stack([first_ids, last_ids])
    return Stream(token_ids, positions, visible_ids, own_ids, biases, members, tuple(segments))


def _ids_of(first: int, last: int) -> tuple[int, int]:
    """The lowest and the highest id of some paraphrases' segments. One of the 64 highest is the paraphrase's
    own, those below are for its copy of the context's parts."""
    return first << SEGMENT_BITS, last << SEGMENT_BITS | FIRST_ANSWER - 1
