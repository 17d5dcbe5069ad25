"""Where each branch that is being answered stands, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from flexray.engine.choosing import Chances, uniform_numbers
from flexray.engine.kv_pool import BLOCK_SIZE, PADDING_CODE, KVPool, Placement, row_blocks
from flexray.engine.transfer import to_device
from flexray.masks.block_mask import BlockLists
from flexray.masks.layout import FIRST_BRANCH, PART_BITS, Shape
from flexray.methods import Draw


class DecodeState:
    """Where each branch stands, on the device; `R + 1` places, the last one for padding.

    Args:
        max_branches: R, branches that may be on their way at once.
    """

    def __init__(self, pool: KVPool, max_branches: int, max_new_tokens: int):
        R, device = max_branches, pool.device

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.padding_place = R
        self.max_branches, self.max_new_tokens = max_branches, max_new_tokens
        self.codes = zeros(2, R + 1, dtype=torch.int32)  # seen and own, see QueryTables
        self.codes[:, R] = PADDING_CODE
        self.token = zeros(R + 1)  # the last one generated; its K/V are written by the next step
        self.position = zeros(R + 1)
        self.order = zeros(R + 1)
        self.produced = zeros(R + 1)  # tokens generated
        self.done = torch.ones(R + 1, dtype=torch.bool, device=device)
        self.output = zeros(R + 1, max_new_tokens)
        self.slots = zeros(R + 1, max_new_tokens)  # where each generated token's K/V go
        self.biases = zeros(2, R + 1, dtype=torch.float32)
        self.draws = zeros(2, R + 1, dtype=torch.float32)  # temperature and top_p of those that sample
        self.uniforms = zeros(R + 1, max_new_tokens, dtype=torch.float32)  # for each token to generate
        # [2, ...]: partial blocks, full blocks. Of the partial ones a branch looks at the first
        # `other_blocks`, and at those that its answer has reached; its first token stands at
        # `answer_offset` in the first of them.
        self.block_indices = zeros(2, R + 1, pool.num_blocks, dtype=torch.int32)
        self.full_blocks = zeros(R + 1)
        self.other_blocks = zeros(R + 1)
        self.answer_offset = zeros(R + 1)
        self.admissions = 0  # a place may have another branch after each
        self._free = list(range(R - 1, -1, -1))

    @property
    def num_free(self) -> int:
        """Branches that can be admitted."""
        return len(self._free)

    def admit(
        self, shapes: Sequence[Shape], placements: Sequence[Placement], context: BlockLists
    ) -> list[int]:
        """Give rows' branches their places; their first tokens are still to come (`start`).

        Args:
            context: the blocks of the context that the rows share.

        Returns:
            Their places, row by row.
        """
        self.admissions += 1
        numbers: list[tuple[int, ...]] = []
        lists: list[BlockLists] = []
        slots: list[np.ndarray] = []
        for shape, placement in zip(shapes, placements, strict=True):
            blocks = row_blocks(shape, self.max_new_tokens)
            code = placement.row << PART_BITS
            for b, own in enumerate(blocks.branches):
                full, partial = placement.blocks[own.full], placement.blocks[own.partial]
                if shape.sees_context:
                    full = np.concatenate([context.full, full])
                    partial = np.concatenate([context.partial, partial])
                lists.append(BlockLists(full, partial))
                first = int(shape.answer_slots[b])
                slots.append(placement.slots[first : first + self.max_new_tokens])
                numbers.append(
                    (
                        self._free.pop(),
                        code + int(shape.seen_parts[shape.cue_ends[b]]),
                        code + FIRST_BRANCH + b,
                        int(shape.answer_positions[b]),
                        shape.first_order + first,
                        len(full),
                        len(partial) - blocks.answers[b],
                        first % BLOCK_SIZE,
                    )
                )
        width = max(len(blocks) for pair in lists for blocks in (pair.full, pair.partial))
        indices = np.zeros((2, len(lists), width), dtype=np.int32)
        for i, pair in enumerate(lists):
            indices[0, i, : len(pair.partial)] = pair.partial
            indices[1, i, : len(pair.full)] = pair.full
        device = self.token.device
        columns = to_device(np.asarray(numbers).T, device)
        places = columns[0]
        self.codes[:, places] = columns[1:3].int()
        self.position[places], self.order[places] = columns[3], columns[4]
        self.full_blocks[places], self.other_blocks[places] = columns[5], columns[6]
        self.answer_offset[places] = columns[7]
        # fills, not assignments of a number: those copy it from the host, which then waits for the device
        self.block_indices.index_fill_(1, places, 0)  # dense backends read more of them than are counted
        self.block_indices[:, places, :width] = to_device(indices, device)
        self.slots[places] = to_device(np.stack(slots), device)
        biases = [s.biases[:, s.cue_ends] for s in shapes]
        self.biases[:, places] = to_device(np.concatenate(biases, axis=1), device)
        return [number[0] for number in numbers]

    def start(self, places: Tensor, first_tokens: Tensor, stop: Tensor) -> None:
        """Branches that are prefilled have their first token. int64 [N] each; stop: bool [V]."""
        self.token[places] = first_tokens
        self.output[places, 0] = first_tokens
        self.produced.index_fill_(0, places, 1)
        self.done[places] = stop[first_tokens]
        if self.max_new_tokens == 1:
            self.done.index_fill_(0, places, True)

    def set_draws(self, places: Tensor, draws: Sequence[Draw], row_ids: Sequence[str]) -> None:
        """How branches sample, before they have their first token. places: int64 [N]."""
        device, count = self.token.device, self.max_new_tokens
        settings = np.asarray([(d.temperature, d.top_p) for d in draws], dtype=np.float32)
        numbers = [uniform_numbers(d, row_id, count) for d, row_id in zip(draws, row_ids, strict=True)]
        self.produced.index_fill_(0, places, 0)
        self.draws[:, places] = to_device(settings.T.copy(), device)
        self.uniforms[places] = to_device(np.stack(numbers), device)

    def chances(self, places: Tensor) -> Chances:
        """What branches draw their next tokens with."""
        next_one = self.produced[places].clamp_max(self.max_new_tokens - 1)  # of one that is done, any
        temperature, top_p = self.draws[:, places]
        return Chances(temperature, top_p, self.uniforms[places, next_one])

    def leave(self, places: Sequence[int]) -> None:
        """Take places back."""
        self._free += places

    def block_counts(self, places: Tensor) -> Tensor:
        """int32 [2, B]: how many partial and full blocks branches look at, the next token's among them."""
        reached = (self.answer_offset[places] + self.produced[places] - 1).div(
            BLOCK_SIZE, rounding_mode="floor"
        ) + 1
        return torch.stack([self.other_blocks[places] + reached, self.full_blocks[places]]).int()
