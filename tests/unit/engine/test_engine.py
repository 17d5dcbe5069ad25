import dataclasses
from importlib import metadata

import pytest
import torch

from flexray.errors import ConfigError
from flexray.models import flex
from tests import oracles
from tests.expected import oracle_answers, tokens


@pytest.mark.parametrize(("max_num_seqs", "backend"), [(1, "sdpa"), (3, "sdpa"), (8, "flex")])
def test_the_number_of_rows_at_once_changes_no_answer(
    make_model, make_engine, make_prompts, max_num_seqs, backend
):
    prompts = make_prompts(10)
    engine = make_engine(make_model(), max_num_seqs=max_num_seqs, backend=backend)
    assert tokens(engine.generate(prompts)) == oracle_answers(make_model(), prompts, engine)


@pytest.mark.parametrize("positions", ["restart", "continuous"])
def test_a_prompt_longer_than_a_prefill_pass_takes_several(make_model, make_engine, make_prompts, positions):
    prompts = make_prompts(3, num_context=150, longest=90)
    engine = make_engine(make_model(), max_num_batched_tokens=128, layout="full_prompt", positions=positions)
    assert engine.fallback.sizes.max_num_batched_tokens < max(sum(map(len, p.segments)) for p in prompts)
    assert tokens(engine.generate(prompts)) == oracle_answers(make_model(), prompts, engine)


def test_hundreds_of_copies_of_the_context_in_one_prefill_are_right(make_model, make_engine, make_prompts):
    prompts = make_prompts(5, num_context=3)
    many = [
        dataclasses.replace(p, segments=tuple((32 + (7 * i + n) % 200,) for i in range(60)))
        for n, p in enumerate(prompts)
    ]
    settings = {"layout": "full_prompt", "positions": "continuous", "backend": "sdpa", "max_new_tokens": 2}
    engine = make_engine(make_model(), **settings)
    assert tokens(engine.generate(many)) == oracle_answers(make_model(), many, engine)


def test_an_empty_context_a_single_token_and_a_single_new_token_are_answered(
    make_model, make_engine, make_prompts
):
    prompts = [
        dataclasses.replace(p, segments=((50,), *p.segments[1:])) for p in make_prompts(4, num_context=0)
    ]
    for max_new_tokens in (1, 2):
        for layout in ("shared_context", "full_prompt"):
            engine = make_engine(make_model(), layout=layout, max_new_tokens=max_new_tokens)
            assert tokens(engine.generate(prompts)) == oracle_answers(make_model(), prompts, engine)


def test_prompts_of_several_contexts_are_answered_in_the_order_given(make_model, make_engine, make_prompts):
    mixed = [p for pair in zip(make_prompts(3), make_prompts(3, seed=1), strict=True) for p in pair]
    engine = make_engine(make_model())
    assert tokens(engine.generate(mixed)) == oracle_answers(make_model(), mixed, engine)


def test_no_prompts_are_no_generations(make_model, make_engine):
    assert make_engine(make_model()).generate([]) == []


def test_each_row_stops_by_itself_and_says_why(make_model, make_engine, make_prompts):
    engine = make_engine(make_model(), max_new_tokens=40)
    generations = engine.generate(make_prompts(30))
    stops = engine.stopping.stop_ids()
    generations = [g for ((g,),) in generations]
    for g in generations:
        assert not set(g.token_ids[:-1]) & stops
        last = g.token_ids[-1]
        assert g.finish_reason == {2: "eos", 10: "newline"}.get(last, "length")
        assert (g.finish_reason == "length") == (len(g.token_ids) == 40)
    assert len({g.finish_reason for g in generations}) == 3


def test_the_context_is_computed_once_for_all_calls(make_model, make_engine, make_prompts):
    engine = make_engine(make_model())
    prompts = make_prompts(12)
    engine.generate(prompts[:5])
    engine.generate(prompts[5:])
    stats = engine.stats.to_dict()
    assert stats["context_tokens"] == 70
    assert stats["prefill_tokens"] == sum(oracles.num_distinct(p) + len(p.answer_prefix) for p in prompts)


def test_all_blocks_of_the_kv_cache_are_free_again_after_a_call(make_model, make_engine, make_prompts):
    engine = make_engine(make_model())
    engine.generate(make_prompts(20))
    cache = engine.runner.kv_cache
    assert cache.num_held == 0
    assert cache.num_free_blocks == cache.num_blocks - 1 - len(cache.context_blocks)


def test_graphs_stay_the_same_after_warm_up_whatever_the_rows_and_lengths(
    make_model, make_engine, make_prompts
):
    engine = make_engine(make_model())
    for count in (1, 9, 16):
        engine.generate(make_prompts(count))
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for seed in range(1, 6):
        engine.generate(make_prompts(seed * 7, longest=5 * seed, seed=seed, num_context=70))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def test_after_warm_up_every_block_mask_is_in_the_cache_whatever_the_lengths(
    make_model, make_engine, make_prompts
):
    engine = make_engine(make_model(), max_new_tokens=10)
    for count in (1, 9, 16):
        engine.generate(make_prompts(count))
    context = make_prompts(1)[0].context
    misses, hits = engine.mask_cache.misses, engine.mask_cache.hits
    for seed in range(1, 6):
        prompts = make_prompts(seed * 7, longest=5 * seed, seed=seed)
        engine.generate([dataclasses.replace(p, context=context) for p in prompts])
    assert engine.mask_cache.misses == misses
    assert engine.mask_cache.hits > hits + 50


def test_a_cache_that_is_too_small_for_the_next_call_is_made_anew(make_model, make_engine, make_prompts):
    engine = make_engine(make_model(), backend="sdpa")
    (short,) = make_prompts(1)
    sizes = engine.fallback.full_sizes
    engine.fallback.full_sizes = dataclasses.replace(sizes, max_num_slots=512)
    engine.generate([short])
    assert engine.runner.kv_cache.num_slots == 512
    engine.fallback.full_sizes = sizes
    long = dataclasses.replace(short, segments=(tuple(range(32, 232)) * 3,))
    assert tokens(engine.generate([long])) == oracle_answers(make_model(), [long], engine)


def test_a_row_that_no_kv_cache_can_hold_is_an_error_and_the_others_are_answered(
    make_model, make_engine, make_prompts
):
    prompts = make_prompts(3)
    huge = dataclasses.replace(prompts[1], segments=(tuple([40] * 2000),))
    engine = make_engine(make_model(), backend="sdpa")
    engine.fallback.full_sizes = dataclasses.replace(engine.fallback.full_sizes, max_num_slots=1024)
    generations = engine.generate([prompts[0], huge, prompts[2]])
    ((failed,),) = generations[1]
    assert "needs a KV cache of" in failed.error
    assert failed.finish_reason == "error"
    others = [generations[0], generations[2]]
    assert tokens(others) == oracle_answers(make_model(), [prompts[0], prompts[2]], engine)


@pytest.fixture
def no_compiler(tmp_path, monkeypatch):
    """A machine without a C++ compiler: compiled FlexAttention cannot be built on its CPU."""
    import torch._inductor.config
    from torch._inductor.utils import fresh_cache

    torch._dynamo.reset()
    flex.compiled_flex.cache_clear()
    with torch._inductor.config.patch({"cpp.cxx": (str(tmp_path / "no-such-compiler"),)}), fresh_cache():
        yield
    torch._dynamo.reset()
    flex.compiled_flex.cache_clear()


def test_a_backend_that_cannot_be_built_hands_over_to_the_next_with_the_same_mask(
    make_model, make_engine, make_prompts, no_compiler
):
    prompts = make_prompts(6)
    engine = make_engine(make_model(), strict=False)
    generations = engine.generate(prompts)
    assert tokens(generations) == oracle_answers(make_model(), prompts, engine)
    for ((g,),) in generations:
        assert (g.backend_requested, g.backend_used) == ("flex", "sdpa")
        assert g.fallback_reason.startswith("flex: ")
        assert g.attempts == 2
        assert not g.error
    # it is not tried again for each batch, and each row still says why
    again = [g for ((g,),) in engine.generate(prompts[:2])]
    assert {g.backend_used for g in again} == {"sdpa"}
    assert {g.attempts for g in again} == {1}
    assert all(g.fallback_reason for g in again)


def test_flex_alone_asks_for_a_torch_whose_kernels_can_be_trusted(make_model, make_engine, monkeypatch):
    installed = metadata.version
    found = {"torch": "2.11.0"}
    monkeypatch.setattr(metadata, "version", lambda name: found.get(name) or installed(name))
    make_engine(make_model(), backend="sdpa")
    with pytest.raises(ConfigError, match=r"torch 2\.11\.0 cannot be trusted with FlexAttention on a CPU"):
        make_engine(make_model(), backend="flex")


def test_strict_fails_instead_of_falling_back(make_model, make_engine, make_prompts, no_compiler):
    from flexray.engine.fallback import handled_errors

    engine = make_engine(make_model(), strict=True)
    with pytest.raises(handled_errors()):
        engine.generate(make_prompts(2))
