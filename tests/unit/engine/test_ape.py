"""Adaptive parallel encoding: the logits are the oracle's, and nothing else of a run changes."""

import dataclasses

import pytest
import torch
from torch.nn.attention import flex_attention

from flexray.config import MethodConfig
from flexray.masks.layout import SEGMENT_BITS
from flexray.masks.visibility import is_of_paraphrase
from tests import oracles
from tests.unit.engine.test_methods import APE, tokens
from tests.unit.engine.test_shared_prefixes import attend_apart, logits_of

AS_ATTENTION = MethodConfig(kind="ape", attention_temperature=1, attention_scale=1)
HEAD = (90, 91, 92)


@pytest.fixture(scope="module")
def prompts(make_prompts):
    """With a head, and paraphrases that begin alike; the last one without a context."""
    found = [
        dataclasses.replace(
            p,
            segments=tuple((*HEAD, *p.segments[0][: 3 * i], *s) for i, s in enumerate(p.segments)),
            num_head=len(HEAD),
        )
        for p in make_prompts(3, longest=12)
    ]
    return [*found, dataclasses.replace(found[1], context=(), num_head=0)]


def oracle_logits(model, prompt, method, said):
    stream = oracles.stream(prompt, "shared_context", "restart", said[:-1])
    settings = {"temperature": method.attention_temperature, "scale": method.attention_scale}
    return oracles.ape_logits(model, stream, **settings)[-len(said) :]


@pytest.mark.parametrize("share_prefixes", [True, False], ids=["shared", "whole"])
@pytest.mark.parametrize("backend", ["flex", "sdpa", "eager"])
def test_the_logits_are_those_of_the_oracle_and_with_1_and_1_those_of_attention(
    make_model, make_engine, prompts, backend, share_prefixes
):
    model = make_model()
    for method in (APE[1], AS_ATTENTION) if share_prefixes else APE[:1]:
        engine = make_engine(
            make_model(), methods=[method], backend=backend, share_prefixes=share_prefixes, max_new_tokens=3
        )
        for prompt in prompts:
            said, found = logits_of(engine, prompt)
            expected = oracle_logits(model, prompt, method, said)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
            plain = oracles.logits_of(model, oracles.stream(prompt, "shared_context", "restart", said[:-1]))[
                -len(said) :
            ]
            if method is AS_ATTENTION:
                torch.testing.assert_close(found, plain, rtol=0, atol=1e-4)
            else:
                assert (found - plain).abs().max() > 0.01
        assert (engine.stats.shared_tokens > 0) == share_prefixes


@pytest.mark.slow
def test_beside_attention_to_a_context_apart_the_logits_are_the_oracle_s(
    make_model, make_engine, prompts, monkeypatch
):
    monkeypatch.setattr(flex_attention, "_WARNINGS_SHOWN", set())  # torch warns once in a process
    engine = attend_apart(make_engine(make_model(), methods=[APE[1]], max_new_tokens=2), 64)
    with pytest.warns(UserWarning, match="flex_attention called without torch.compile"):
        said, found = logits_of(engine, prompts[0])
    assert engine.runner._apart_in_prefill == engine.runner._apart_in_decode == (32, 96)
    expected = oracle_logits(make_model(), prompts[0], APE[1], said)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("backend", ["flex", "sdpa", "eager"])
def test_paraphrases_are_computed_as_ever_bit_for_bit(make_model, make_engine, prompts, backend):
    caches = []
    for method in (MethodConfig(), APE[1]):
        engine = make_engine(make_model(), methods=[method], backend=backend, max_new_tokens=1)
        engine.generate(prompts[:1])
        cache = engine.runner.kv_cache
        request = cache.tables.first >> SEGMENT_BITS
        theirs = is_of_paraphrase(cache.tables.first) & (request <= 0)
        caches.append(torch.stack([cache.keys[-1][:, theirs], cache.values[-1][:, theirs]]))
        assert int(theirs.sum()) >= oracles.num_distinct(prompts[0])
    assert torch.equal(*caches)


def test_after_warm_up_nothing_is_compiled_and_every_mask_is_there(make_model, make_engine, make_prompts):
    engine = make_engine(make_model(), methods=[MethodConfig(), APE[0], APE[1]])
    for count in (1, 9, 16):
        engine.generate(make_prompts(count))
    graphs, misses = torch._dynamo.utils.counters["stats"]["unique_graphs"], engine.mask_cache.misses
    for seed in range(1, 4):
        prompts = make_prompts(seed * 7, longest=5 * seed, seed=seed)
        engine.generate([dataclasses.replace(p, context=make_prompts(1)[0].context) for p in prompts])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
    assert engine.mask_cache.misses == misses


def test_several_temperatures_and_scales_share_one_prefill(make_model, make_engine, prompts):
    engine = make_engine(make_model(), methods=APE, backend="sdpa", max_new_tokens=3)
    together = tokens(engine.generate(prompts))
    assert engine.stats.prefill_tokens == sum(
        oracles.num_distinct(p) - p.num_head + len(APE) * len(p.answer_prefix) for p in prompts
    )
    for number, method in enumerate(APE):
        alone = make_engine(make_model(), methods=[method], backend="sdpa", max_new_tokens=3)
        assert [(said[number],) for said in together] == tokens(alone.generate(prompts))
