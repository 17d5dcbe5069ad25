"""The flow of rows through the engine, by one backend: admit, decode, retire."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from flexray import faults
from flexray.engine import llama
from flexray.engine.budget import Budget
from flexray.engine.choosing import Fuser, choose_tokens
from flexray.engine.decode import decode
from flexray.engine.decode_state import DecodeState
from flexray.engine.desk import Branch, Desk, Passes, Row
from flexray.engine.prefill import Stream, copy_context, place_row, prefill, rows_stream
from flexray.engine.stats import EngineStats
from flexray.engine.transfer import to_device
from flexray.masks.block_mask import NO_BLOCKS, BlockMaskCache
from flexray.methods import DRAWN, TOGETHER, Choice
from flexray.types import Backend


@dataclass(frozen=True, slots=True)
class Flow:
    """What the passes need besides a desk."""

    model: LlamaForCausalLM
    stop: Tensor  # bool [V], tokens after which an answer ends
    stats: EngineStats
    mask_cache: BlockMaskCache
    budget: Budget

    def answer_rows(self, desk: Desk, rows: Sequence[Row], backend: Backend) -> Iterator[Row]:
        """Answer rows; yields each as soon as all its branches are done."""
        passes = Passes(self.stats, backend)
        waiting, active, finished = deque(rows), list[Branch](), list[Row]()
        try:
            while waiting or active:
                self._admit(waiting, active, desk, passes)
                yield from finished  # the caller's work with them is done while the device prefills
                self._decode(active, desk, passes)
                self._place(waiting, self.budget.rows_ahead, desk)
                finished = self._retire(active, desk)
            yield from finished
        finally:
            desk.state.leave([branch.place for branch in active if branch.place >= 0])
            held = {branch.row for branch in active} | {row for row in waiting if row.placement is not None}
            _release(held, desk)
        passes.check(num_layers=len(desk.pool.keys))

    def _place(self, waiting: deque[Row], count: int, desk: Desk) -> int:
        """Give the first `count` waiting rows their places, as far as there is room; returns how many have
        one. Beyond what may be active at once: the host's work for rows to come is done while the device
        is at work."""
        first = list(itertools.islice(waiting, count))
        new = [row for row in first if row.placement is None]
        placements = desk.pool.place([row.sample for row in new])
        for row, placement in zip(new, placements, strict=False):
            row.placement = placement
            row.placed = place_row(row.sample, placement, desk.state.max_new_tokens)
        return len(first) - len(new) + len(placements)

    def _admit(self, waiting: deque[Row], active: list[Branch], desk: Desk, passes: Passes) -> None:
        """Prefill waiting rows, if there is room for enough of them to make a pass worth while."""
        limit = self.budget.max_rows
        sizes = itertools.accumulate(len(row.branches) for row in waiting)
        fit = sum(1 for _ in itertools.takewhile(lambda size: size <= limit - len(active), sizes))
        if not active and waiting:
            fit = max(fit, 1)  # a row of more branches than are worked on at once
        elif not fit or (fit < len(waiting) and limit - len(active) < limit // 4):
            return
        start = time.perf_counter()
        new = [waiting.popleft() for _ in range(self._place(waiting, fit, desk))]
        if not new:
            assert active, "the pool holds the largest row: see Engine._desk_for"
            return
        state, pool = desk.state, desk.pool
        samples = [row.sample for row in new]
        placements = [row.placement for row in new if row.placement is not None]
        branches = [branch for row in new for branch in row.branches]
        for branch in branches:  # an earlier try may have come some way
            branch.place, branch.token_ids = -1, None
        active += branches
        if faults.expected():
            for row in new:
                faults.reach(
                    "engine.prefill", backend=passes.backend, ids=" ".join(map(str, row.sample.token_ids))
                )
        copy_context(self.model, pool, samples, placements)
        sees_context = samples[0].shape.sees_context
        stream = rows_stream(
            [row.placed for row in new if row.placed is not None],
            pool.context_lists if sees_context else NO_BLOCKS,
        )
        last_BD = self.prefill(stream, desk, passes)
        # the host's work from here on is done while the device prefills
        places = state.admit([s.shape for s in samples], placements, pool.context_lists)
        for branch, place in zip(branches, places, strict=True):
            branch.place, branch.steps_left = place, state.max_new_tokens - 1
        first_tokens = self._first_tokens(last_BD, branches, state)
        state.start(to_device(np.asarray(places), pool.device), first_tokens, self.stop)
        self.stats.prefill_tokens += sum(s.num_tokens for s in samples)
        self.stats.prefill_seconds += time.perf_counter() - start

    def prefill(self, stream: Stream, desk: Desk, passes: Passes) -> Tensor:
        """Run a stream in passes; hidden states [N, hidden] of the tokens that answers begin at."""
        ends = []
        for part in stream.passes(self.budget):
            hidden = prefill(
                self.model,
                desk.prefill_batch(self.budget.prefill_bucket(len(part))),
                part,
                backend=passes.backend,
                cache=self.mask_cache,
                calls=self.stats.calls[passes.backend],
            )
            passes.count += 1
            ends.append(hidden)
        return torch.cat(ends)

    @torch.no_grad()
    def _first_tokens(self, last_BD: Tensor, branches: list[Branch], state: DecodeState) -> Tensor:
        """The first token of each branch, int64 [B]."""
        device = last_BD.device
        tokens = torch.empty(len(branches), dtype=torch.int64, device=device)
        for choice, members in _by_choice(branches).items():
            index = to_device(np.asarray([i for i, _ in members]), device)
            fuser, chances = None, None
            if choice in TOGETHER:
                fuser = Fuser(len(members), device)
                fuser.choose(*_groups([branch for _, branch in members]))
            elif choice in DRAWN:
                places = to_device(np.asarray([branch.place for _, branch in members]), device)
                draws = [branch.draw for _, branch in members if branch.draw is not None]
                state.set_draws(places, draws, [branch.row.prompt.row_id for _, branch in members])
                chances = state.chances(places)
            tokens[index] = choose_tokens(llama.logits(self.model, last_BD[index]), choice, fuser, chances)
        return tokens

    def _decode(self, active: list[Branch], desk: Desk, passes: Passes) -> None:
        """A few steps for all active branches: as many as go by before the host looks who is done."""
        start = time.perf_counter()
        steps = min(self.budget.steps_per_look, max(branch.steps_left for branch in active))
        for choice, members in _by_choice(active).items():
            branches = [branch for _, branch in members]
            batch = desk.decode_batch(passes.backend, choice, self.budget.decode_bucket(len(branches)))
            groups = _groups(branches) if choice in TOGETHER else ()
            batch.choose([branch.place for branch in branches], *groups)
            rows = {branch.row for branch in branches}
            widest = len(desk.pool.context_blocks) + max(
                len(row.placement.blocks) for row in rows if row.placement
            )
            calls = self.stats.calls[passes.backend]
            for _ in range(steps):
                decode(self.model, batch, self.stop, self.mask_cache, widest, calls)
                passes.count += 1
                self.stats.decode_steps += 1
        for branch in active:
            branch.steps_left -= steps
        self.stats.decode_seconds += time.perf_counter() - start

    def _retire(self, active: list[Branch], desk: Desk) -> list[Row]:
        """Take out the branches that are done, with what they generated; the rows that are done by that."""
        start = time.perf_counter()
        state = desk.state
        places = to_device(np.asarray([branch.place for branch in active]), desk.pool.device)
        done, produced = torch.stack([state.done[places].long(), state.produced[places]]).tolist()
        self.stats.decode_seconds += time.perf_counter() - start  # the device's: this is where the host waits
        if not any(done):
            return []
        output = state.output[places].tolist()
        gone = [branch for i, branch in enumerate(active) if done[i]]
        for i, branch in enumerate(active):
            if done[i]:
                branch.token_ids = output[i][: produced[i]]
        active[:] = [branch for i, branch in enumerate(active) if not done[i]]
        state.leave([branch.place for branch in gone])
        self.stats.generated_tokens += sum(len(branch.token_ids or ()) for branch in gone)
        rows = dict.fromkeys(branch.row for branch in gone)
        finished = [row for row in rows if all(b.token_ids is not None for b in row.branches)]
        _release(finished, desk)
        return finished


def _by_choice(branches: list[Branch]) -> dict[Choice, list[tuple[int, Branch]]]:
    """Branches, with their places in the list, by how they choose their tokens."""
    found: dict[Choice, list[tuple[int, Branch]]] = {}
    for i, branch in enumerate(branches):
        found.setdefault(branch.choice, []).append((i, branch))
    return found


def _groups(branches: list[Branch]) -> tuple[list[int], list[float]]:
    """The number of each branch's group, and its weight in it."""
    numbers: dict[tuple[int, int], int] = {}
    groups = [numbers.setdefault(branch.group, len(numbers)) for branch in branches]
    return groups, [branch.weight for branch in branches]


def _release(rows: set[Row] | list[Row], desk: Desk) -> None:
    desk.pool.release([row.placement for row in rows if row.placement is not None])
    for row in rows:
        row.placement = row.placed = None
