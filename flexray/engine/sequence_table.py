"""Where each running sequence stands, on the device."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Listed
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flexray.engine.block_lists import members_of, sequence_blocks
from flexray.engine.cuda_graph import CudaGraph
from flexray.engine.kv_cache import BLOCK_SIZE, PADDING_ID, KVCache, all_slots, first_ids
from flexray.engine.request import Request, Sequence
from flexray.engine.sampler import SampledTokens, uniform_numbers
from flexray.engine.token_logprobs import LogprobsTable, read_logprobs
from flexray.engine.transfers import ToHost, to_device
from flexray.masks.block_masks import BlockLists
from flexray.masks.layout import ALL_MEMBERS, FIRST_ANSWER, NUM_BIASES
from flexray.masks.runs import FIRST, POSITION, PREFILLED, SLOT, VISIBLE_FIRST, VISIBLE_LAST, tabulate
from flexray.models.llama import compiled

FindEnd = Callable[[Listed[int]], int]
"""From the tokens of an answer to how many of them are left of it; 0: it has no end yet."""


@dataclass(frozen=True, eq=False, slots=True)
class Snapshot:
    """What the table held of some sequences, on its way to the host."""

    sequences: Listed[Sequence]
    rows: ToHost
    """int64 [3, B]: done, tokens produced, not finite; int64 [B, n]: tokens, as many as the longest answer
    may have by now; with log-probabilities, `LogprobsTable.rows`."""


class SequenceTable:
    """One row a running sequence, and a last one for padding, `R + 1` in all. The next token's forward pass
    reads it, and `append` writes what was chosen; the host reads it only by `snapshot` and `finished`.

    Args:
        max_sequences: R, sequences that may be running at once.
        max_blocks: KV blocks that one of them attends to, at most.
        stop: bool [V], tokens that end an answer.
        logprobs: the most likely tokens whose log-probabilities are kept beside the chosen one's. None: not
            even that is.
        find_end: looks whether tokens end an answer besides. The device goes on with it until the host looks
            in `finished`; what comes behind the end is dropped.
        subsets: whether a sequence may see some of the paraphrases only.
        forced: whether sequences may have tokens to take.
    """

    def __init__(
        self,
        kv_cache: KVCache,
        max_sequences: int,
        max_blocks: int,
        max_new_tokens: int,
        stop: Tensor,
        *,
        logprobs: int | None = None,
        find_end: FindEnd | None = None,
        subsets: bool = False,
        forced: bool = False,
    ):
        R, device = max_sequences, kv_cache.device

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.padding_row = R
        self.max_sequences, self.max_blocks, self.max_new_tokens = R, max_blocks, max_new_tokens
        self.stop, self.subsets, self._find_end = stop, subsets, find_end
        self.segment_ids = zeros(3, R + 1, dtype=torch.int32)  # first and last visible, own: see QueryTables
        self.segment_ids[:, R] = PADDING_ID
        self.members = torch.full((R + 1,), ALL_MEMBERS, dtype=torch.int64, device=device)
        self.token = zeros(R + 1)  # the last one generated; its K/V are written by the next step
        self.position = zeros(R + 1)
        self.causal_index = zeros(R + 1)
        self.produced = zeros(R + 1)  # tokens generated
        self.done = torch.ones(R + 1, dtype=torch.bool, device=device)
        self.not_finite = zeros(R + 1, dtype=torch.bool)
        self.output = zeros(R + 1, max_new_tokens)
        self.logprobs: LogprobsTable | None = None
        if logprobs is not None:
            self.logprobs = LogprobsTable(R + 1, max_new_tokens, min(logprobs, len(stop)), device)
        self.forced: Tensor | None = None  # tokens to take, and how many
        if forced:
            self.forced, self.num_forced = zeros(R + 1, max_new_tokens), zeros(R + 1)
        self.slots = zeros(R + 1, max_new_tokens)  # where each generated token's K/V go
        self.biases = zeros(NUM_BIASES, R + 1, dtype=torch.float32)
        self.sampling = zeros(2, R + 1, dtype=torch.float32)  # temperature and top_p
        self.uniforms = zeros(R + 1, max_new_tokens, dtype=torch.float32)  # for each token to draw
        # [2, ...]: partial blocks, full blocks. Of the partial ones a sequence looks at the first
        # `other_blocks`, and at those that its answer has reached; its first generated token stands at
        # `answer_offset` in the first of them.
        self.block_indices = zeros(2, R + 1, max_blocks, dtype=torch.int32)
        self.full_blocks = zeros(R + 1)
        self.other_blocks = zeros(R + 1)
        self.answer_offset = zeros(R + 1)
        self._free = list(range(R - 1, -1, -1))
        self._appends: dict[tuple[int, int], CudaGraph[None]] = {}  # by places of rows and tokens

    @property
    def num_free(self) -> int:
        """Sequences that can be admitted."""
        return len(self._free)

    def admit(self, requests: Listed[Request], context: BlockLists) -> Tensor:
        """Give the sequences of prefilled requests their rows; their first tokens are still to come.

        Args:
            context: the blocks of the context that the requests share.

        Returns:
            Their rows, int64 [B], request by request.
        """
        layouts = [request.packed.layout for request in requests]
        tables = [request.block_table for request in requests if request.block_table is not None]
        sequences = [sequence for request in requests for sequence in request.sequences]
        for sequence in sequences:
            sequence.row = self._free.pop()
        blocks = sequence_blocks(layouts, tables, context)
        runs, request_of = tabulate([layout.runs for layout in layouts])
        generated = (runs[:, FIRST] >= FIRST_ANSWER) & (runs[:, PREFILLED] == 0)
        runs, request_of = runs[generated], request_of[generated]
        runs[:, [FIRST, VISIBLE_FIRST, VISIBLE_LAST]] += first_ids(tables)[request_of, None]
        cache_slots, starts = all_slots(tables)
        first = starts[request_of] + runs[:, SLOT]
        columns = np.stack(
            [
                np.array([sequence.row for sequence in sequences]),
                runs[:, VISIBLE_FIRST],
                runs[:, VISIBLE_LAST],
                runs[:, FIRST],
                # `append` moves both on to the first generated token
                runs[:, POSITION] - 1,
                layouts[0].first_causal_index + runs[:, SLOT] - 1,
                blocks.num_full,
                blocks.num_other,
                runs[:, SLOT] % BLOCK_SIZE,
            ]
        )
        own = np.asarray([sequence.request.max_new_tokens for sequence in sequences])
        places = np.minimum(np.arange(self.max_new_tokens), own[:, None] - 1)  # it goes no further
        slots = cache_slots[first[:, None] + places]
        biases = np.array([own for layout in layouts for own in layout.biases], dtype=np.float32)
        device = self.token.device
        columns_B = to_device(columns, device)
        rows = columns_B[0]
        self.segment_ids[:, rows] = columns_B[1:4].int()
        self.position[rows], self.causal_index[rows] = columns_B[4], columns_B[5]
        self.full_blocks[rows], self.other_blocks[rows] = columns_B[6], columns_B[7]
        self.answer_offset[rows] = columns_B[8]
        # fills, not assignments of a number: those copy it from the host, which then waits for the device
        self.block_indices.index_fill_(1, rows, 0)  # dense backends read more of them than are counted
        self.block_indices[:, rows, : blocks.indices.shape[2]] = to_device(blocks.indices, device)
        self.slots[rows] = to_device(slots, device)
        self.biases[:, rows] = to_device(biases.T, device)
        if self.subsets:
            self.members[rows] = to_device(members_of(layouts), device)
        self.produced.index_fill_(0, rows, 0)
        self.done.index_fill_(0, rows, False)
        self.not_finite.index_fill_(0, rows, False)
        self._set_sampling(sequences)
        if self.forced is not None:
            count = self.max_new_tokens
            tokens = np.asarray([s.forced + (0,) * (count - len(s.forced)) for s in sequences])
            self.forced[rows] = to_device(tokens, device)
            self.num_forced[rows] = to_device(np.asarray([len(s.forced) for s in sequences]), device)
        return rows

    def _set_sampling(self, sequences: Listed[Sequence]) -> None:
        """How sequences draw their tokens, for those that do."""
        drawn = [s for s in sequences if s.sampling.temperature > 0]
        if not drawn:
            return
        device, count = self.token.device, self.max_new_tokens
        rows = to_device(np.asarray([s.row for s in drawn]), device)
        params = [(s.sampling.temperature, s.sampling.top_p) for s in drawn]
        numbers = [uniform_numbers(s.sampling, s.request.prompt.row_id, count) for s in drawn]
        self.sampling[:, rows] = to_device(np.asarray(params, dtype=np.float32).T.copy(), device)
        self.uniforms[rows] = to_device(np.stack(numbers), device)

    @torch.no_grad()
    def append(self, rows: Tensor, sampled: SampledTokens) -> None:
        """Add one token to each sequence; those that have finished stay as they are.

        Args:
            rows: int64 [B]. With replayed tokens it must be the same tensor at each step.
        """
        if not sampled.is_replayed:
            return _append(self, rows, sampled)
        place = (rows.data_ptr(), sampled.token_ids.data_ptr())
        if place not in self._appends:
            self._appends[place] = CudaGraph(lambda: compiled(_append, dynamic=True)(self, rows, sampled))
        return self._appends[place]()

    def forget_graphs(self) -> None:
        """Let go of what holds the table itself, and so the KV cache."""
        self._appends.clear()

    def snapshot(self, sequences: Listed[Sequence], rows: Tensor) -> Snapshot:
        """Begin to read how far sequences are.

        Args:
            rows: int64 [B], theirs; more may follow.
        """
        rows = rows[: len(sequences)]
        longest = self.max_new_tokens - min(sequence.steps_left for sequence in sequences)
        states = torch.stack([self.done[rows].long(), self.produced[rows], self.not_finite[rows].long()])
        logprobs = () if self.logprobs is None else self.logprobs.rows(rows, longest)
        return Snapshot(sequences, ToHost(states, self.output[rows, :longest], *logprobs))

    def finished(self, snapshot: Snapshot) -> list[Sequence]:
        """Those of the sequences that had finished then, with their tokens; their rows are free. Waits for
        the snapshot."""
        states, output, *logprobs = snapshot.rows.wait()
        done, produced, not_finite = states.tolist()
        found, written = [], output.numpy()
        for i, sequence in enumerate(snapshot.sequences):
            if sequence.token_ids is not None or (not done[i] and self._find_end is None):
                continue  # found by an earlier snapshot, or not finished
            tokens = tuple(written[i, : produced[i]].tolist())
            end = 0 if self._find_end is None else self._find_end(tokens)
            if done[i] or end:
                sequence.token_ids = tokens[: end or None]
                sequence.is_finite = not not_finite[i]
                if self.logprobs is not None:
                    sequence.logprobs = read_logprobs(logprobs, i, len(sequence.token_ids))
                found.append(sequence)
        self._free += [sequence.row for sequence in found]
        return found

    def slot_mapping(self, rows: Tensor) -> Tensor:
        """Slot mapping of a decode step, int64 [B]: where the K/V of the last tokens go. Those of a prompt's
        last token are in the cache already: theirs is a slot of the scratch block."""
        produced = self.produced[rows]
        return self.slots[rows, (produced - 1).clamp_min(0)].where(produced > 0, 0)

    def block_counts(self, rows: Tensor) -> Tensor:
        """int32 [2, B]: how many partial and full blocks sequences look at, the next token's among them."""
        reached = (self.answer_offset[rows] + self.produced[rows] - 1).div(
            BLOCK_SIZE, rounding_mode="floor"
        ) + 1
        return torch.stack([self.other_blocks[rows] + reached, self.full_blocks[rows]]).int()


def _append(table: SequenceTable, rows: Tensor, sampled: SampledTokens) -> None:
    going = ~table.done[rows]
    token = torch.where(going, sampled.token_ids, table.token[rows])
    produced = table.produced[rows] + going
    places = (produced - 1).clamp_min(0)
    table.output[rows, places] = token
    if table.logprobs is not None:
        assert sampled.logprobs is not None
        table.logprobs.append(rows, places, going, sampled.logprobs)
    table.token[rows] = token
    table.position[rows] += going
    table.causal_index[rows] += going
    table.produced[rows] = produced
    not_finite = table.not_finite[rows] | (going & ~sampled.is_finite)
    table.not_finite[rows] = not_finite
    ends = table.stop[token] | (produced >= table.max_new_tokens)
    if table.forced is not None:
        num_forced = table.num_forced[rows]
        ends = torch.where(num_forced > 0, produced >= num_forced, ends)
    table.done[rows] |= ends | not_finite
