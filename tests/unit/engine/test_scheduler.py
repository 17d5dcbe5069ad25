"""How many questions and sequences are worked on at once."""

import dataclasses
from collections import deque

import pytest
import torch

from flexray.config import EngineConfig, MethodConfig
from flexray.engine.kv_cache import BLOCK_SIZE, KVCache
from flexray.engine.request import PrefixGroup, Request
from flexray.engine.sampler import SampledTokens
from flexray.engine.scheduler import DecodeBatch, PrefillBatch, Scheduler
from flexray.engine.scheduler_config import scheduler_config_for
from flexray.engine.sequence_table import SequenceTable
from flexray.engine.stats import EngineStats
from flexray.methods import make_methods
from flexray.prompts.prompt import Prompt

METHODS = [
    MethodConfig(kind="avg"),
    MethodConfig(),
    MethodConfig(kind="per_prompt"),
    MethodConfig(kind="sampled", samples=4),
]


@pytest.fixture
def watch(monkeypatch):
    """The batches that an engine's runner gets, as they are when they run."""

    def watch(engine):
        seen = []
        run = engine.runner.run

        def watched(batch):
            seen.append((batch, list(batch.sequences)))
            return run(batch)

        monkeypatch.setattr(engine.runner, "run", watched)
        return seen

    return watch


def test_max_num_seqs_bounds_questions_at_once_and_sequences_a_batch_however_many_methods(
    make_model, make_engine, make_prompts, watch
):
    prompts = make_prompts(12, longest=5)
    engine = make_engine(make_model(), methods=METHODS, backend="sdpa", max_num_seqs=6, max_new_tokens=3)
    batches = watch(engine)
    engine.generate(prompts)
    running, most = set(), 0
    for batch, sequences in batches:
        requests = {sequence.request.index for sequence in sequences}
        if isinstance(batch, PrefillBatch):
            running |= requests
            assert len(requests) == 1 or len(sequences) <= 6
        else:
            assert isinstance(batch, DecodeBatch)
            groups = {s.fusion_group for s in sequences if s.fusion}
            assert len(sequences) <= 6 or len(groups) == 1
    rounds = [b for b in batches if isinstance(b[0], DecodeBatch)]
    at_once = max(len({s.request.index for _, part in rounds[i : i + 12] for s in part}) for i in range(3))
    most = max(most, at_once)
    assert 3 <= most <= 6, "several questions are under way, though each has over ten sequences"


def test_sequences_that_choose_together_are_always_in_one_batch(make_model, make_engine, make_prompts, watch):
    prompts = make_prompts(8, longest=5)
    engine = make_engine(make_model(), methods=METHODS, backend="sdpa", max_num_seqs=3, max_new_tokens=4)
    batches = watch(engine)
    engine.generate(prompts)
    for _, sequences in batches:
        for sequence in sequences:
            if sequence.fusion is not None:
                group = sequence.request.of_method(sequence.method)
                assert set(group) <= set(sequences)


def test_a_stream_yields_each_prompt_as_soon_as_all_methods_have_answered(
    make_model, make_engine, make_prompts
):
    prompts = make_prompts(10, longest=8)
    engine = make_engine(make_model(), methods=METHODS, backend="sdpa", max_num_seqs=2)
    expected = engine.generate(prompts)
    held, found = [], {}
    for index, answers in engine.stream(prompts):
        held.append(engine.runner.kv_cache.num_held)
        found[index] = answers
    assert [found[i] for i in range(10)] == expected
    assert held[0] > 0, "others are still under way"
    assert len(found) == len(held) == 10


def test_a_first_request_that_is_longer_than_a_pass_is_admitted_by_itself(make_model):
    loop = Loop(make_model().config, 1, blocks=2048, lookahead=8, max_num_batched_tokens=8192)
    (group,) = {request.group for request in loop.scheduler.waiting}
    long = [Prompt((), ((3,) * length,), (9,)) for length in (10_000, 9_000, 8_000)]
    loop.scheduler.waiting = deque(Request(i, prompt, group, 5) for i, prompt in enumerate(long))
    assert loop.sizes.fixed
    batch = loop.scheduler.schedule()
    assert isinstance(batch, PrefillBatch)
    assert [request.index for request in batch.requests] == [0]


class Loop:
    """The engine's loop with a real cache and table, but no model: the tokens are told."""

    def __init__(self, shape, count, *, alone=False, new=5, blocks=64, **sizes):
        device = torch.device("cpu")
        config = scheduler_config_for(shape, 4, None, EngineConfig(max_num_seqs=8))
        self.sizes = dataclasses.replace(config, **sizes)
        self.cache = KVCache(
            num_layers=1,
            num_kv_heads=1,
            head_dim=8,
            num_slots=blocks * BLOCK_SIZE,
            max_requests=self.sizes.max_num_requests + self.sizes.lookahead,
            dtype=torch.float32,
            device=device,
        )
        stop = torch.zeros(16, dtype=torch.bool)
        stop[2] = True
        self.table = SequenceTable(self.cache, 8, 4, new, stop)
        self.stats = EngineStats.zero(device)
        (method,) = make_methods([MethodConfig()])
        group = PrefixGroup(method.prefix, ((0, method),))
        requests = [Request(i, Prompt((), ((3, 4),), (9,)), group, new) for i in range(count)]
        self.scheduler = Scheduler(requests, self.sizes, self.cache, self.table, self.stats, alone=alone)

    def step(self, *ending):
        """Run what comes next: its batch, and the requests that are told to be finished. Those that are
        `ending` say the token that stops them."""
        batch = self.scheduler.schedule()
        if isinstance(batch, PrefillBatch):
            batch.rows = self.table.admit(batch.requests, self.cache.context_lists(head=False))
        else:
            batch.rows = torch.tensor([sequence.row for sequence in batch.sequences])
        ids = torch.tensor([2 if sequence.request.index in ending else 7 for sequence in batch.sequences])
        finished = self.scheduler.postprocess(batch, SampledTokens(ids, ids > 0))
        return batch, [request.index for request in finished]


def numbers(batch):
    return [sequence.request.index for sequence in batch.sequences]


@pytest.fixture
def loop(make_model):
    shape = make_model().config
    return lambda count, **settings: Loop(shape, count, **settings)


def test_waiting_requests_are_prefilled_once_a_quarter_of_the_places_is_free(loop):
    loop = loop(20, new=9)
    assert numbers(loop.step()[0]) == list(range(8))
    assert numbers(loop.step(3)[0]) == list(range(8))
    batch, finished = loop.step(5)  # one place is free: not worth a pass
    assert isinstance(batch, DecodeBatch)
    assert numbers(batch) == [0, 1, 2, 4, 5, 6, 7]
    assert finished == [3]
    batch, finished = loop.step()
    assert isinstance(batch, PrefillBatch)
    assert numbers(batch) == [8, 9]
    assert finished == [5]
    batch, _ = loop.step()
    assert isinstance(batch, DecodeBatch)
    assert numbers(batch) == [0, 1, 2, 4, 6, 7, 8, 9]


def test_the_last_waiting_request_is_prefilled_as_soon_as_a_place_is_free(loop):
    loop = loop(9, new=9)
    loop.step()
    loop.step(3)
    batch, _ = loop.step()
    assert isinstance(batch, PrefillBatch)
    assert numbers(batch) == [8]


def test_requests_wait_for_blocks_of_the_cache(loop):
    loop = loop(4, blocks=3)  # one of them is scratch
    assert numbers(loop.step()[0]) == [0, 1]
    loop.step(1)
    batch, _ = loop.step()
    assert isinstance(batch, PrefillBatch)
    assert numbers(batch) == [2]


def test_the_host_looks_every_few_steps_and_never_after_more_than_an_answer_has(loop):
    loop = loop(1, new=6, num_scheduler_steps=4)
    loop.step()
    batches = [loop.step()[0] for _ in range(4)]
    assert all(batch is batches[0] for batch in batches)
    assert loop.scheduler.has_work()
    assert loop.step()[0] is batches[0]  # the sixth token is the last one
    assert not loop.scheduler.has_work()
    (request,) = loop.scheduler.take_finished()
    assert request.sequences[0].token_ids == (7,) * 6
    assert (loop.scheduler.take_finished(), loop.stats.generated_tokens) == ([], 6)


def test_the_host_looks_at_a_batch_while_the_next_one_is_decoded(loop, monkeypatch):
    loop = loop(6, new=9, num_scheduler_steps=2, max_num_seqs=2, max_num_requests=6)
    for _ in range(3):
        assert isinstance(loop.step()[0], PrefillBatch)
    events = []
    snapshot, finished = loop.table.snapshot, loop.table.finished
    names = {}

    def taken(sequences, rows):
        found = snapshot(sequences, rows)
        names[id(found)] = [sequence.request.index for sequence in sequences]
        return found

    def looked(found):
        events.append(("look", names[id(found)]))
        return finished(found)

    monkeypatch.setattr(loop.table, "snapshot", taken)
    monkeypatch.setattr(loop.table, "finished", looked)
    for _ in range(6):
        events.append(("step", numbers(loop.step(2)[0])))
    first, second, third = [0, 1], [2, 3], [4, 5]
    assert events == [
        ("step", first),
        ("step", first),
        ("look", first),  # within the first step of the second batch
        ("step", second),
        ("step", second),
        ("look", second),
        ("step", third),
        ("look", third),  # none waits, so there is nothing else to do
        ("step", third),
    ]
    batch, finished = loop.step()
    assert (numbers(batch), finished) == ([0, 1], [])
    assert sorted(s.request.index for s in loop.scheduler.running) == [0, 1, 3, 4, 5]


def test_a_batch_that_is_alone_on_a_gpu_is_looked_at_while_it_takes_its_next_step(loop, monkeypatch):
    loop = loop(3, new=6, lookahead=8, num_scheduler_steps=4)
    loop.step()
    looks, finished = [], loop.table.finished
    monkeypatch.setattr(loop.table, "finished", lambda taken: looks.append(len(seen)) or finished(taken))
    seen, found = [], []
    while loop.scheduler.has_work():
        batch, ready = loop.step(*[1] * (len(seen) == 1))
        seen.append(numbers(batch))
        found += ready
    assert seen == [[0, 1, 2]] * 3 + [[0, 2]] * 2, (
        "1 has finished in the second step, which the third one shows"
    )
    assert looks == [1, 2, 3, 4, 4], "in each step at the one before, in the last one at that, too"
    assert found + [request.index for request in loop.scheduler.take_finished()] == [1, 0, 2]
    assert loop.stats.generated_tokens == 6 + 3 + 6


def test_of_a_large_batch_the_host_would_read_too_much_at_each_step(loop, monkeypatch):
    monkeypatch.setattr("flexray.engine.scheduler.LOOK_TOKENS", 3 * 9 - 1)
    loop = loop(3, new=9, lookahead=8, num_scheduler_steps=4)
    loop.step()
    batches = [loop.step(*[1] * (step == 1))[0] for step in range(4)]
    assert all(batch is batches[0] for batch in batches)
    assert [numbers(loop.step()[0]) for _ in range(2)] == [[0, 2]] * 2
    assert len(loop.scheduler._steps) == 0, "two are few enough"


def test_it_takes_one_step_in_vain_at_most(loop):
    loop = loop(2, new=9, lookahead=8, num_scheduler_steps=4)
    loop.step()
    loop.step(0, 1)
    assert loop.scheduler.has_work(), "that both have finished is not known yet"
    loop.step()
    assert not loop.scheduler.has_work()
    assert [request.index for request in loop.scheduler.take_finished()] == [0, 1]
    assert (loop.stats.generated_tokens, loop.cache.num_held, loop.table.num_free) == (4, 0, 8)


def test_those_that_wait_are_prefilled_before_the_host_looks_at_the_last_batch(loop):
    loop = loop(5, new=9, max_num_seqs=2, max_num_requests=4)
    loop.step(), loop.step()
    loop.step(0), loop.step(2)
    batch, _ = loop.step()
    assert isinstance(batch, PrefillBatch)
    assert numbers(batch) == [4]
    assert sorted(s.request.index for s in loop.scheduler.running) == [1, 3, 4]


def test_if_the_cache_is_full_the_host_looks_before_it_prefills_little(loop):
    loop = loop(12, new=9, max_num_seqs=4, max_num_requests=8, blocks=7)  # a block a request, one is scratch
    assert [numbers(loop.step()[0]) for _ in range(2)] == [[0, 1, 2, 3], [4, 5]]
    loop.step(0), loop.step(4, 5)
    assert loop.cache.num_free_blocks == 1, "that 4 and 5 have finished is not known yet"
    batch, _ = loop.step()
    assert isinstance(batch, PrefillBatch)
    assert numbers(batch) == [6, 7, 8]


def test_prefill_batches_grow_so_that_a_gpu_soon_has_something_to_do(loop):
    loop = loop(300, new=2, lookahead=8, max_num_seqs=512, max_num_requests=512, blocks=8192)
    for request in loop.scheduler.waiting:
        request.prompt = Prompt((), ((3,) * 511,), (9,))  # of 512 tokens
    sizes = []
    while loop.scheduler.waiting:
        batch = loop.scheduler.schedule()
        assert isinstance(batch, PrefillBatch)
        sizes.append(len(batch.requests))
        loop.scheduler.running += batch.sequences
    assert sizes == [16, 64, 220]


def test_requests_ahead_get_their_blocks_while_others_are_decoded(loop):
    loop = loop(12, lookahead=3)
    loop.step()
    assert loop.cache.num_held == 8
    loop.step()
    assert loop.cache.num_held == 8 + 3
    loop.step(*range(8))
    batch, _ = loop.step()
    assert numbers(batch) == [8, 9, 10, 11]
    assert loop.cache.num_held == 4


def test_requests_that_are_run_alone_are_prefilled_one_by_one(loop):
    loop = loop(3, alone=True)
    batches = [loop.step()[0] for _ in range(4)]
    assert [numbers(batch) for batch in batches] == [[0], [1], [2], [0, 1, 2]]


def test_answers_of_one_token_are_finished_by_their_prefill(loop):
    loop = loop(2, new=1)
    loop.step()
    assert not loop.scheduler.has_work()
    assert [request.index for request in loop.scheduler.take_finished()] == [0, 1]
    assert loop.cache.num_held == 0
