"""Few-shots whose question has paraphrases: isolated from each other, and their answer sees all of them."""

import dataclasses
import math
import random

import pytest
import torch

from flexray.config import MethodConfig
from flexray.prompts.prompt import Prompt
from tests import oracles
from tests.unit.engine.test_methods import tokens
from tests.unit.engine.test_shared_prefixes import attend_apart

METHODS = [
    MethodConfig(),
    MethodConfig(layout="full_prompt", paraphrase_scale="-log N"),
    MethodConfig(positions="continuous"),
    MethodConfig(layout="full_prompt", positions="continuous"),
    MethodConfig(layout="myriadlama", cross_attention=True),
    MethodConfig(layout="myriadlama", positions="continuous", paraphrase_scale=1.5),
    MethodConfig(kind="avg"),
    MethodConfig(kind="ape", attention_temperature=0.5, attention_scale=1.2),
]
MAX_NEW_TOKENS = 5


def words(rnd, count):
    return tuple(rnd.randrange(32, 256) for _ in range(count))


def make_prompts_with_few_shots(num_plain):
    """A context of so many tokens, then a few-shot in 2 paraphrases, and one in 4. All questions begin with a
    head."""
    rnd = random.Random(3)
    context, few_shots = words(rnd, num_plain), []
    for lengths in ((9, 4), (3, 12, 7, 5)):
        bounds = [len(context)]
        for length in lengths:
            context += words(rnd, length)
            bounds.append(len(context))
        few_shots.append(tuple(bounds))
        context += words(rnd, 11)
    head = (90, 91)
    return [
        Prompt(
            context,
            tuple((*head, *words(rnd, length)) for length in lengths),
            (70, 71),
            num_manual=len(lengths) - 1,
            num_head=len(head),
            few_shots=tuple(few_shots),
        )
        for lengths in ((6,), (4, 11, 1), (9, 2))
    ]


@pytest.fixture(scope="module")
def prompts():
    """With a context of three blocks."""
    return make_prompts_with_few_shots(21)


def logits_along(model, prompt, method, said):
    """The oracle's logits [T, V], behind the prompt and behind each token of an answer but the last."""
    if method.kind == "ape":
        stream = oracles.stream(prompt, "shared_context", "restart", said[:-1])
        settings = {"temperature": method.attention_temperature, "scale": method.attention_scale}
        return oracles.ape_logits(model, stream, **settings)[-len(said) :]
    if method.kind != "attention":
        logits = [
            [oracles.logits_alone(model, prompt, i, said[:end]) for end in range(len(said))]
            for i in range(len(prompt.segments))
        ]
        return torch.stack([torch.stack(each) for each in logits]).mean(0)
    stream = oracles.stream(prompt, method.layout, method.positions, said[:-1])
    mask = oracles.mask_of(stream, prompt.num_manual if method.cross_attention else 0)
    scale = method.paraphrase_scale
    scale = -math.log(len(prompt.segments)) if scale == "-log N" else scale
    return oracles.logits_of(model, stream, mask, oracles.scales_of(stream, scale))[-len(said) :]


@pytest.mark.parametrize("backend", ["flex", "sdpa", "eager"])
def test_all_methods_say_what_their_oracles_say(make_brief_model, make_engine, prompts, backend):
    model = make_brief_model()
    engine = make_engine(make_brief_model(), methods=METHODS, max_new_tokens=MAX_NEW_TOKENS, backend=backend)
    first = tokens(engine.generate(prompts))
    assert tokens(engine.generate(prompts[::-1]))[::-1] == first
    for prompt, by_method in zip(prompts, first, strict=True):
        for method, (said,) in zip(METHODS, by_method, strict=True):
            assert logits_along(model, prompt, method, said).argmax(-1).tolist() == list(said), method.name
    # twice a call: where positions restart, and where they are continuous
    assert engine.stats.context_tokens == 4 * (len(prompts[0].context) + prompts[0].num_head)


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("method", METHODS[:4], ids=lambda method: method.name)
def test_the_logits_are_those_of_the_oracle(make_model, make_engine, prompts, method, backend):
    engine, found = make_engine(make_model(), methods=[method], backend=backend, max_new_tokens=1), []
    run = engine.runner.run
    engine.runner.run = lambda batch: found.append(run(batch)) or found[-1]
    for prompt in prompts:
        engine.generate([prompt])
        expected = logits_along(make_model(), prompt, method, (0,))
        torch.testing.assert_close(found[-1][:1], expected, rtol=0, atol=1e-4)
        plain = logits_along(make_model(), dataclasses.replace(prompt, few_shots=()), method, (0,))
        assert (plain - expected).abs().max() > 0.01


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_attending_to_the_context_apart_says_the_same(make_model, make_engine, prompts):
    engine = attend_apart(make_engine(make_model(), max_new_tokens=2), 64)  # with all few-shots' paraphrases
    ((said,),) = tokens(engine.generate(prompts[:1]))[0]
    assert engine.runner._apart_in_decode == (32, 96)
    assert logits_along(make_model(), prompts[0], METHODS[0], said).argmax(-1).tolist() == list(said)


@pytest.mark.parametrize("positions", ["restart", "continuous"])
def test_a_changed_paraphrase_changes_no_other_of_its_few_shot_by_a_bit(
    make_model, make_engine, prompts, positions
):
    engine = make_engine(make_model(), positions=positions, backend="sdpa", max_new_tokens=1)
    start, stop = prompts[0].few_shots[1][1:3]  # the second of four
    context = list(prompts[0].context)
    context[start:stop] = [255 - token // 2 for token in context[start:stop]]
    of_last_layer = []
    for prompt in (prompts[0], dataclasses.replace(prompts[0], context=tuple(context))):
        engine.generate([prompt])
        cache = engine.runner.kv_cache
        of_last_layer.append(cache.keys[-1][:, cache.context_slots].clone())
    before, after = of_last_layer
    differs = (before != after).any(-1).any(0).tolist()
    behind = prompts[0].few_shots[1][-1]
    assert not any(differs[:start])
    assert all(differs[start:stop])
    assert not any(differs[stop:behind])
    assert all(differs[behind : len(context)])  # the answer looks at all of them
