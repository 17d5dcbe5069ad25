"""A row's answer depends on the row alone: in bfloat16, whose roundings decide many of these tokens."""

import dataclasses
import random

import pytest
import torch

from flexray.config import MethodConfig

METHODS = [
    MethodConfig(),
    MethodConfig(layout="full_prompt", positions="continuous"),
    MethodConfig(kind="per_prompt"),
    MethodConfig(kind="avg"),
    MethodConfig(kind="max"),
    MethodConfig(kind="nbce"),
    MethodConfig(kind="draws", draws=2, size=2),
    MethodConfig(kind="sampled", samples=2),
    MethodConfig(kind="ape"),
]


HEAD = (90, 91, 92)


def with_head(prompts):
    """Prompts whose paraphrases all begin with the same tokens of the template; numbered."""
    return [
        dataclasses.replace(
            p, segments=tuple((*HEAD, *s) for s in p.segments), num_head=len(HEAD), row_id=str(i)
        )
        for i, p in enumerate(prompts)
    ]


def answers_of(engine, prompts):
    return [[[g.token_ids for g in said] for said in row] for row in engine.generate(prompts)]


@pytest.mark.parametrize("quantization", [None, "fp8"])
def test_no_row_differs_with_its_neighbours_their_order_the_size_of_the_call_or_the_methods_beside_it(
    make_model, make_engine, make_prompts, quantization
):
    prompts = with_head(make_prompts(9, longest=12))
    settings = {"quantization": quantization, "max_num_batched_tokens": 256, "max_new_tokens": 3}
    engine = make_engine(make_model().bfloat16(), methods=METHODS, **settings)
    together = answers_of(engine, prompts)
    shuffled = list(range(9))
    random.Random(1).shuffle(shuffled)
    for size in (9, 4, 1):
        order = shuffled if size > 1 else shuffled[:2]
        for start in range(0, len(order), size):
            call = order[start : start + size]
            assert answers_of(engine, [prompts[i] for i in call]) == [together[i] for i in call]
    alone = make_engine(make_model().bfloat16(), methods=METHODS[:1], **settings)
    assert answers_of(alone, prompts) == [row[:1] for row in together]


def test_a_deterministic_engine_has_one_size_of_pass_and_one_of_step(make_model, make_engine, make_prompts):
    engine = make_engine(make_model(), max_num_batched_tokens=256)
    graphs = set()
    for count in (1, 30, 7):
        engine.generate(make_prompts(count))
        graphs.add(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert len(graphs) == 1, "graphs were compiled after the first row"
    assert engine.rounding["tokens_of_a_pass"] == 256
    assert engine.rounding["sequences_of_a_step"] == 8
    assert make_engine(make_model(), deterministic=False).rounding == {}
