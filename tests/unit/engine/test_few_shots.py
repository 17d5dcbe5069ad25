"""Few-shots whose question has paraphrases: isolated from each other, and their answer sees all of them."""

import dataclasses
import random

import pytest
import torch

from flexray.config import MethodConfig
from flexray.prompts.prompt import Prompt
from tests import oracles
from tests.unit.engine.test_methods import oracle_says, tokens
from tests.unit.engine.test_shared_prefixes import attend_apart

METHODS = [
    MethodConfig(),
    MethodConfig(layout="full_prompt", paraphrase_scale="-log N"),
    MethodConfig(positions="continuous"),
    MethodConfig(layout="full_prompt", positions="continuous"),
    MethodConfig(layout="myriadlama", cross_attention=True),
    MethodConfig(layout="myriadlama", positions="continuous", paraphrase_scale=1.5),
    MethodConfig(kind="per_prompt"),
    MethodConfig(kind="avg"),
]
MAX_NEW_TOKENS = 5


def words(rnd, count):
    return tuple(rnd.randrange(32, 256) for _ in range(count))


@pytest.fixture(scope="module")
def prompts():
    """A context of three blocks: a plain few-shot, then one of 2 paraphrases, and one of 4. All questions
    begin with a head."""
    rnd = random.Random(3)
    context, few_shots = words(rnd, 21), []
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
def expected(make_brief_model, prompts):
    """[method][prompt] -> tokens of each answer."""
    model, rules = make_brief_model(), {"stop_ids": {2, 10}, "max_new_tokens": MAX_NEW_TOKENS}
    return [[oracle_says(model, p, method, **rules) for p in prompts] for method in METHODS]


@pytest.mark.parametrize("backend", ["flex", "sdpa", "eager"])
def test_all_methods_say_what_their_oracles_say(make_brief_model, make_engine, prompts, expected, backend):
    engine = make_engine(make_brief_model(), methods=METHODS, max_new_tokens=MAX_NEW_TOKENS, backend=backend)
    for _ in range(2):
        found = tokens(engine.generate(prompts))
        assert [list(said) for said in zip(*found, strict=True)] == expected
    # computed again only where the positions change
    assert engine.stats.context_tokens == 4 * (len(prompts[0].context) + 2)


def test_without_isolation_or_with_other_positions_they_would_say_something_else(
    make_brief_model, prompts, expected
):
    model, rules = make_brief_model(), {"stop_ids": {2, 10}, "max_new_tokens": MAX_NEW_TOKENS}
    plain = [dataclasses.replace(p, few_shots=()) for p in prompts]
    for number in (0, 2):
        assert [oracle_says(model, p, METHODS[number], **rules) for p in plain] != expected[number]
    assert expected[0] != expected[2]


@pytest.mark.parametrize("method", METHODS[:4], ids=lambda method: method.name)
def test_the_logits_are_those_of_the_oracle(make_model, make_engine, prompts, method):
    for backend, apart in (("sdpa", False), ("eager", False)):
        engine = make_engine(make_model(), methods=[method], backend=backend, max_new_tokens=1)
        found = []
        run = engine.runner.run

        def watch(batch, run=run, found=found):
            found.append(run(batch))
            return found[-1]

        engine.runner.run = watch
        for prompt in prompts:
            engine.generate([prompt])
            stream = oracles.stream(prompt, method.layout, method.positions)
            scale = -float(torch.tensor(len(prompt.segments)).log()) if method.paraphrase_scale else 0.0
            expected = oracles.logits_of(make_model(), stream, scales=oracles.scales_of(stream, scale))
            torch.testing.assert_close(found[-1][0], expected[-1], rtol=0, atol=1e-4)
