"""Which blocks of the KV cache requests and their sequences look at: of many requests at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flexray.engine.kv_cache import BLOCK_SIZE, BlockTable
from flexray.masks.block_masks import NO_BLOCKS, BlockLists
from flexray.masks.layout import ALL_MEMBERS, FIRST_ANSWER, Layout
from flexray.masks.runs import (
    FIRST,
    LAST,
    LENGTH,
    PREFILLED,
    SLOT,
    VISIBLE_FIRST,
    VISIBLE_LAST,
    count_each,
    tabulate,
)


@dataclass(frozen=True, slots=True)
class SequenceBlocks:
    """The blocks that B sequences look at."""

    indices: np.ndarray  # int32 [2, B, W], ids of partial blocks, and of full ones, seen whole
    num_full: np.ndarray  # int64 [B]
    num_other: np.ndarray  # int64 [B], partial blocks before those that its generated tokens will fill


def prompt_blocks(
    layouts: Sequence[Layout], block_tables: Sequence[BlockTable]
) -> tuple[list[np.ndarray], np.ndarray]:
    """The ids, int64, of each request's blocks that hold more than tokens to be generated; and how many of
    those there are up to each block of it, int64 [requests, blocks]."""
    runs, request = tabulate([layout.runs for layout in layouts])
    filled = (runs[:, PREFILLED] == 1) | (runs[:, FIRST] < FIRST_ANSWER)
    held = _slots_held(request[filled], runs[filled], len(layouts)) > 0
    ids, starts = _all_blocks(block_tables)
    requests, numbers = np.nonzero(held)
    found, ends = ids[starts[requests] + numbers], np.cumsum(held.sum(1)).tolist()
    return [found[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)], held.cumsum(1)


def sequence_blocks(
    layouts: Sequence[Layout], block_tables: Sequence[BlockTable], context: BlockLists
) -> SequenceBlocks:
    """The blocks of all sequences of requests with one shared prefix, request by request.

    Args:
        context: the blocks of the context that the requests share.
    """
    runs, request = tabulate([layout.runs for layout in layouts])
    is_answer = runs[:, FIRST] >= FIRST_ANSWER
    is_prefilled = runs[:, PREFILLED] == 1
    paraphrases = runs[~is_answer]
    prefixes, generated = runs[is_answer & is_prefilled], runs[is_answer & ~is_prefilled]
    request_of = request[is_answer & is_prefilled]
    B = len(prefixes)

    # each sequence with each run of its request's paraphrases
    num_runs = np.bincount(request[~is_answer], minlength=len(layouts))
    pairs = num_runs[request_of]
    sequence = np.repeat(np.arange(B), pairs)
    first_run = (np.cumsum(num_runs) - num_runs)[request_of]
    run = paraphrases[np.repeat(first_run, pairs) + count_each(pairs)]
    query = prefixes[sequence]
    seen = (run[:, FIRST] <= query[:, VISIBLE_LAST]) & (query[:, VISIBLE_FIRST] <= run[:, LAST])
    if layouts[0].members is not None:
        seen &= (members_of(layouts)[sequence] >> (run[:, FIRST] & 63)) & 1 == 1

    filled = _slots_held(
        np.concatenate([sequence[seen], np.arange(B)]), np.concatenate([run[seen], prefixes]), B
    )
    to_fill = _slots_held(np.arange(B), generated, B) > 0
    width = to_fill.shape[1]
    filled = np.pad(filled, ((0, 0), (0, width - filled.shape[1])))
    full = filled == BLOCK_SIZE
    partial = ((filled > 0) & ~full) | to_fill  # in order: those to fill are the last ones
    shared = context if layouts[0].sees_context else NO_BLOCKS
    kinds = ((partial, shared.partial), (full, shared.full))
    counts = [own.sum(1) + len(before) for own, before in kinds]
    indices = np.zeros((2, B, max(count.max() for count in counts)), dtype=np.int32)
    ids, starts = _all_blocks(block_tables)
    for row, (own, before) in zip(indices, kinds, strict=True):
        row[:, : len(before)] = before
        sequences, numbers = np.nonzero(own)
        place = len(before) + count_each(own.sum(1))
        row[sequences, place] = ids[starts[request_of[sequences]] + numbers]
    return SequenceBlocks(indices, counts[1], counts[0] - to_fill.sum(1))


def members_of(layouts: Sequence[Layout]) -> np.ndarray:
    """Which paraphrases each sequence sees, as `Layout.members`, int64 [B], request by request."""
    each = [layout.members or (ALL_MEMBERS,) * len(layout.biases) for layout in layouts]
    return np.concatenate([np.array(members, dtype=np.int64) for members in each])


def _slots_held(rows: np.ndarray, runs: np.ndarray, num_rows: int) -> np.ndarray:
    """How many slots of each block its row's runs have, int64 [num_rows, blocks]."""
    start, stop = runs[:, SLOT], runs[:, SLOT] + runs[:, LENGTH]
    first = start // BLOCK_SIZE
    blocks = (stop - 1) // BLOCK_SIZE - first + 1
    width = int((first + blocks).max())
    piece = np.repeat(np.arange(len(runs)), blocks)  # each run in each of its blocks
    block = first[piece] + count_each(blocks)
    slots = np.minimum(stop[piece], (block + 1) * BLOCK_SIZE) - np.maximum(start[piece], block * BLOCK_SIZE)
    held = np.zeros((num_rows, width), dtype=np.int64)
    np.add.at(held, (rows[piece], block), slots)
    return held


def _all_blocks(block_tables: Sequence[BlockTable]) -> tuple[np.ndarray, np.ndarray]:
    """The block ids of all requests, one request behind the other, and where each one's begin."""
    lengths = np.array([len(table.blocks) for table in block_tables])
    return np.concatenate([table.blocks for table in block_tables]), np.cumsum(lengths) - lengths
