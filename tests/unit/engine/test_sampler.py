"""Drawn answers: against the oracle, at the right chances, and the same whatever is around them."""

import dataclasses

import numpy as np
import pytest
import torch

from flexray.config import MethodConfig
from flexray.engine.kv_cache import BLOCK_SIZE, KVCache
from flexray.engine.request import PrefixGroup, Request
from flexray.engine.sampler import MOST_LIKELY, Sampler, draw, uniform_numbers
from flexray.engine.scheduler import PrefillBatch
from flexray.engine.sequence_table import SequenceTable
from flexray.methods import SamplingParams, make_methods
from flexray.prompts.prompt import Prompt
from tests import oracles

NEW = 6


@pytest.fixture(scope="module")
def prompts(make_prompts):
    found = make_prompts(4, longest=12)
    return [dataclasses.replace(p, row_id=f"qa/test/{i}") for i, p in enumerate(found)]


def answers_of(engine, prompts):
    """[prompt][method][answer] -> token ids."""
    return [[[list(g.token_ids) for g in said] for said in methods] for methods in engine.generate(prompts)]


def oracle_says(model, prompt, paraphrase, params, stop_ids):
    return oracles.sampled(
        model,
        prompt,
        paraphrase,
        uniform_numbers(params, prompt.row_id, NEW).tolist(),
        temperature=params.temperature,
        top_p=params.top_p,
        stop_ids=stop_ids,
    )


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
def test_drawn_answers_are_those_of_the_oracle_with_the_same_numbers(
    make_brief_model, make_engine, prompts, backend
):
    """sampled and confidence together with greedy methods, which must not notice them."""
    methods = [
        MethodConfig(kind="sampled", samples=3, temperature=0.8, top_p=0.9, seed=5),
        MethodConfig(),
        MethodConfig(kind="confidence", samples=2, temperature=1.3),
        MethodConfig(kind="per_prompt"),
    ]
    engine = make_engine(
        make_brief_model(), methods=methods, max_new_tokens=NEW, backend=backend, max_num_seqs=8
    )
    plain, stops = make_brief_model(), engine.stopping.stop_ids()
    for prompt, (drawn, fused, sure, alone) in zip(prompts, answers_of(engine, prompts), strict=True):
        assert drawn == [
            oracle_says(plain, prompt, 0, SamplingParams(0.8, 0.9, 5, i), stops) for i in range(3)
        ]
        assert len(sure) == 3 * len(prompt.segments)
        assert sure[::3] == alone  # temperature 0
        for paraphrase in range(len(prompt.segments)):
            params = [SamplingParams(1.3, index=2 * paraphrase + i) for i in range(2)]
            expected = [oracle_says(plain, prompt, paraphrase, p, stops) for p in params]
            assert sure[3 * paraphrase + 1 : 3 * paraphrase + 3] == expected
        assert fused == [oracles.answer(plain, prompt, max_new_tokens=NEW, stop_ids=stops).token_ids]
    assert len({tuple(answer) for said in answers_of(engine, prompts) for answer in said[0]}) > 6


def test_a_row_draws_the_same_alone_and_among_others_in_any_order(make_model, make_engine, prompts):
    method = [MethodConfig(kind="sampled", samples=4)]
    together = answers_of(
        make_engine(make_model(), methods=method, backend="sdpa", max_num_seqs=32), [*prompts, *prompts[::-1]]
    )
    engine = make_engine(make_model(), methods=method, backend="sdpa", max_num_seqs=2)
    alone = [answers_of(engine, [prompt])[0] for prompt in prompts]
    assert together == [*alone, *alone[::-1]]


def test_another_row_and_another_seed_draw_something_else(make_model, make_engine, prompts):
    def log(seed, row_id):
        engine = make_engine(
            make_model(), methods=[MethodConfig(kind="sampled", seed=seed)], backend="sdpa", max_num_seqs=32
        )
        return answers_of(engine, [dataclasses.replace(prompts[0], row_id=row_id)])

    assert log(0, "a") == log(0, "a")
    assert len({str(log(*key)) for key in [(0, "a"), (1, "a"), (0, "b")]}) == 3


def test_tokens_come_at_the_chances_of_the_softmax():
    probs = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05])
    count = 20_000
    numbers = torch.from_numpy(uniform_numbers(SamplingParams(), "row", count))

    def shares(temperature, top_p):
        full = torch.full((count,), 1.0)
        logits = probs.log().expand(count, -1)
        drawn = draw(logits, temperature * full, top_p * full, numbers, nucleus=top_p < 1)
        return torch.bincount(drawn.token_ids, minlength=5) / count

    assert torch.allclose(shares(1.0, 1.0), probs, atol=0.01)
    assert torch.allclose(shares(2.0, 1.0), probs.sqrt() / probs.sqrt().sum(), atol=0.01)
    assert torch.allclose(shares(1.0, 0.7), torch.tensor([5 / 7, 2 / 7, 0, 0, 0]), atol=0.01)
    assert shares(1.0, 0.4).tolist() == [1, 0, 0, 0, 0]


def test_the_numbers_of_a_draw_are_uniform_and_stay_what_they_are_for_ever():
    numbers = uniform_numbers(SamplingParams(seed=1, index=3), "qa/test/7", 50_000)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert np.allclose(np.histogram(numbers, bins=10, range=(0, 1))[0] / 50_000, 0.1, atol=0.01)
    assert (uniform_numbers(SamplingParams(seed=1, index=3), "qa/test/7", 3) == numbers[:3]).all()
    assert [round(float(n), 6) for n in numbers[:3]] == [0.355116, 0.265458, 0.669429]


@pytest.fixture
def prefilled():
    """A sampler, and a batch of prefilled requests whose first tokens it is to choose."""

    def prefilled(method, count):
        cache = KVCache(
            num_layers=1,
            num_kv_heads=1,
            head_dim=8,
            num_slots=32 * BLOCK_SIZE,
            max_requests=count,
            dtype=torch.float32,
            device=torch.device("cpu"),
        )
        (made,) = make_methods([method])
        group = PrefixGroup(made.prefix, ((0, made),))
        requests = [Request(i, Prompt((), ((3,),), (9,), row_id=f"{i}"), group, NEW) for i in range(count)]
        for request, blocks in zip(requests, cache.allocate([r.packed for r in requests]), strict=True):
            request.block_table = blocks
        sequences = sum(len(request.sequences) for request in requests)
        table = SequenceTable(cache, sequences, 2, NEW, torch.zeros(8, dtype=torch.bool))
        return Sampler(table), PrefillBatch(requests, table.admit(requests, cache.context_lists(head=False)))

    return prefilled


def test_the_likeliest_tokens_of_a_prefill_are_chosen_anew_from_the_same_logits(prefilled):
    sampler, batch = prefilled(MethodConfig(), 2)
    logits = torch.tensor([[0.0, 2.0, 1.0], [0.5, 0.0, torch.inf]])
    for _ in range(3):
        sampled = sampler(logits, batch)
        assert sampled.token_ids.tolist() == [1, 2]
        assert sampled.is_finite.tolist() == [True, False]
        assert not sampled.is_replayed  # no logits of a prefill lie where those of the one before lay


@pytest.mark.parametrize(("top_p", "all_are_drawn"), [(1.0, True), (0.999, False)])
def test_without_a_top_p_every_token_may_be_drawn_and_with_one_the_likeliest_only(
    prefilled, top_p, all_are_drawn
):
    sampler, batch = prefilled(MethodConfig(kind="sampled", samples=10, top_p=top_p), 4)
    vocabulary = 4 * MOST_LIKELY
    logits = (torch.arange(vocabulary) * -1e-4).expand(40, -1).clone()
    drawn = sampler(logits, batch).token_ids
    assert len(set(drawn.tolist())) > 20
    assert (drawn.max() >= MOST_LIKELY) == all_are_drawn
