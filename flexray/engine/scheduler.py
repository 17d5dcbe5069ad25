"""Decides what runs next: which requests are prefilled, which sequences are decoded. No tensor operations."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Listed
from dataclasses import dataclass

from torch import Tensor

from flexray.engine.kv_cache import KVCache
from flexray.engine.request import Request, Sequence
from flexray.engine.sampler import BatchPart, SampledTokens
from flexray.engine.scheduler_config import SchedulerConfig
from flexray.engine.sequence_table import SequenceTable, Snapshot
from flexray.engine.stats import EngineStats


@dataclass(eq=False, slots=True)
class PrefillBatch:
    """Requests whose tokens are prefilled together; their sequences get their first tokens."""

    requests: list[Request]
    rows: Tensor | None = None  # int64 [B] of the SequenceTable, set by the runner
    parts: list[BatchPart] | None = None  # set by the sampler

    @property
    def sequences(self) -> list[Sequence]:
        """Of the requests, in order: B."""
        return [sequence for request in self.requests for sequence in request.sequences]


@dataclass(eq=False, slots=True)
class DecodeBatch:
    """Sequences that get their next tokens together. The same object comes again for each of several
    steps."""

    sequences: list[Sequence]
    num_blocks: int  # KV blocks of the widest of their requests
    rows: Tensor | None = None  # int64 [B], padded, set by the runner
    is_replayed: bool = False  # set by the runner: its logits lie where those of the step before lay
    parts: list[BatchPart] | None = None  # set by the sampler


Batch = PrefillBatch | DecodeBatch
FIRST_TOKENS = 8192
"""Of a prefill batch for a GPU that has nothing to do."""
LOOK_TOKENS = 8192
"""Of answers, that the host may have to read after each step: with log-probabilities, or texts that end an
answer, to read more takes as long as a step."""
GROWTH = 4
"""At most so many times as many tokens has the next one: the host lays them out while the GPU is at work."""


class Scheduler:
    """Takes requests to their ends.

    Args:
        requests: all with one context and one shared prefix.
        alone: prefill each request by itself, so that none can disturb another.
    """

    def __init__(
        self,
        requests: Listed[Request],
        sizes: SchedulerConfig,
        kv_cache: KVCache,
        table: SequenceTable,
        stats: EngineStats,
        *,
        alone: bool = False,
    ):
        self.waiting = deque(requests)
        self.running: list[Sequence] = []
        self._sizes, self._kv_cache, self._table, self._stats = sizes, kv_cache, table, stats
        self._alone = alone
        self._finished: list[Request] = []
        self._steps: deque[DecodeBatch] = deque()  # left of a round, in which each batch takes a few
        self._snapshots: deque[Snapshot] = deque()  # of batches whose steps of this round are done
        self._batches: list[DecodeBatch] = []  # of all running sequences; [] after any change
        self._filling = True  # the last batch was a prefill
        self._most_tokens = math.inf  # of the last prefill batch, more or less

    def has_work(self) -> bool:
        """Whether any request is not finished."""
        return bool(self.waiting or self.running)

    def schedule(self) -> Batch:
        """What runs next: the steps of this round, then a prefill if enough requests fit, else steps of a
        new round."""
        if not self._steps:
            new = self._admit()
            if not new and self._snapshots and not self._looks_each_step:
                self._collect(0)
                new = self._admit()
            self._filling = bool(new)
            if new:
                self._batches = []
                return PrefillBatch(new)
            assert self.running, "the KV cache holds the largest request: see ModelRunner.prepare"
            if not self._batches:
                self._batches = list(self._decode_batches())
            most = 1 if self._looks_each_step else self._sizes.num_scheduler_steps
            for batch in self._batches:
                steps = max(1, max(sequence.steps_left for sequence in batch.sequences))
                self._steps += [batch] * min(most, steps)
        return self._steps.popleft()

    def postprocess(self, batch: Batch, tokens: SampledTokens) -> list[Request]:
        """Append the tokens. Once a batch has taken its steps of this round, look which of its sequences have
        finished, while the device is at what comes next; requests that have free their blocks.

        Returns:
            Requests that were found to have finished earlier, so that the caller's work with them is done
            while the device is at work.
        """
        assert batch.rows is not None
        self._table.append(batch.rows, tokens)
        ready, self._finished = self._finished, []
        sequences = batch.sequences
        if isinstance(batch, PrefillBatch):
            self.running += sequences
            for sequence in sequences:
                sequence.steps_left = (len(sequence.forced) or self._table.max_new_tokens) - 1
            is_last = all(sequence.steps_left <= 0 for sequence in sequences)
        else:
            for sequence in sequences:
                sequence.steps_left -= 1
            is_last = not self._steps or self._steps[0] is not batch
            if not self._steps:
                self._allocate(self._sizes.lookahead)  # the host's work while the device is at these steps
        if is_last:
            self._snapshots.append(self._table.snapshot(sequences, batch.rows))
        goes_on = self._steps or self.waiting or (self._looks_each_step and self._may_go_on)
        self._collect(1 if is_last and goes_on else 0)
        return ready

    def take_finished(self) -> list[Request]:
        """Those that were found last."""
        ready, self._finished = self._finished, []
        return ready

    @property
    def _looks_each_step(self) -> bool:
        """Whether a GPU has but one small batch to decode: the host looks at it after each step, while it
        takes the next one. So the GPU does not wait, and takes one step in vain at most."""
        if self.waiting or not self._sizes.lookahead:
            return False
        most = min(self._sizes.max_num_seqs, LOOK_TOKENS // self._table.max_new_tokens)
        return len(self.running) <= most

    @property
    def _may_go_on(self) -> bool:
        return any(sequence.steps_left > 0 for sequence in self.running)

    def _admit(self) -> list[Request]:
        """Waiting requests to prefill now: if there is room for enough of them to make a pass worth while."""
        if not self.waiting:
            return []
        running = len({sequence.request for sequence in self.running})
        if not running and self._sizes.lookahead:  # a GPU, and idle
            most_tokens: float = FIRST_TOKENS
        else:
            most_tokens = self._most_tokens * GROWTH if self._filling and running else math.inf
        room = self._sizes.max_num_requests - running
        if running and not self._filling and room < min(len(self.waiting), self._sizes.max_num_requests // 4):
            return []
        fit = sequences = tokens = 0
        most = min(room, 1 if self._alone else self._sizes.max_num_seqs)
        first = list(itertools.islice(self.waiting, most))
        for request in first:
            if fit and tokens >= most_tokens:
                break
            sequences += request.num_sequences
            if fit and sequences > self._sizes.max_num_requests:
                break
            tokens += request.packed.num_tokens
            fit += 1
        if self._sizes.fixed and not self._alone and fit < min(room, len(self.waiting)):
            # the next batch follows at once, and can have what would be the first part of a pass
            whole = tokens // self._sizes.max_num_batched_tokens * self._sizes.max_num_batched_tokens
            while tokens > whole > 0 and fit > 1:
                fit -= 1
                tokens -= first[fit].packed.num_tokens
        count = self._allocate(fit)
        if count < fit and self._snapshots:
            return []  # the cache is full: first look which sequences have finished
        if count:
            self._most_tokens = most_tokens
        return [self.waiting.popleft() for _ in range(count)]

    def _allocate(self, count: int) -> int:
        """Give the first `count` waiting requests their KV blocks, as far as there is room; returns how many
        have some."""
        first = list(itertools.islice(self.waiting, count))
        new = [request for request in first if request.block_table is None]
        tables = self._kv_cache.allocate([request.packed for request in new])
        for request, table in zip(new, tables, strict=False):
            request.block_table = table
        return len(first) - len(new) + len(tables)

    def _decode_batches(self) -> Iterator[DecodeBatch]:
        """The running sequences in batches of at most `max_num_seqs`; those that choose together stay
        together."""
        together = itertools.groupby(self.running, key=lambda s: s.fusion_group)
        part: list[Sequence] = []
        for _, members in together:
            group = list(members)
            if part and len(part) + len(group) > self._sizes.max_num_seqs:
                yield _decode_batch(part)
                part = []
            part += group
        yield _decode_batch(part)

    def _collect(self, pending: int) -> None:
        """Take out the sequences that have finished, and their requests with the last of them.

        Args:
            pending: of the snapshots, the last so many are left for when the device has something to do.
        """
        start, gone = time.perf_counter(), []
        while len(self._snapshots) > pending:
            gone += self._table.finished(self._snapshots.popleft())  # here the host waits for the device
        self._stats.decode_seconds += time.perf_counter() - start
        if not gone:
            return
        self._batches = []
        self._stats.generated_tokens += sum(len(sequence.token_ids or ()) for sequence in gone)
        self.running = [sequence for sequence in self.running if sequence.token_ids is None]
        found = [r for r in dict.fromkeys(s.request for s in gone) if r.is_finished]
        self._finished += found
        if broken := [r.block_table for r in found if r.block_table is not None and not r.is_finite]:
            self._kv_cache.zero(broken)
        self._kv_cache.free([r.block_table for r in found if r.block_table is not None])
        for request in found:
            request.block_table = None


def _decode_batch(sequences: list[Sequence]) -> DecodeBatch:
    tables = {s.request: s.request.block_table for s in sequences}.values()
    return DecodeBatch(sequences, max(len(table.blocks) for table in tables if table is not None))
