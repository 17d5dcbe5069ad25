"""Logits that are not finite: an error row, never an answer; and the rows around it are answered as ever."""

import dataclasses

import pytest
import torch

from flexray.config import MethodConfig
from flexray.engine.sampler import LogitsFuser, draw, greedy
from tests.expected import oracle_answers, tokens

BAD_TOKEN = 33
METHODS = [
    MethodConfig(),
    MethodConfig(kind="per_prompt"),
    MethodConfig(kind="avg"),
    MethodConfig(kind="max"),
]


@pytest.fixture
def damaged_model(make_model):
    """One whose embedding of one token is NaN."""
    model = make_model()
    with torch.no_grad():
        model.model.embed_tokens.weight[BAD_TOKEN, 5] = float("nan")
    return model


def without_bad_token(prompt):
    def clean(ids):
        return tuple(34 if i == BAD_TOKEN else i for i in ids)

    return dataclasses.replace(
        prompt,
        context=clean(prompt.context),
        segments=tuple(map(clean, prompt.segments)),
        answer_prefix=clean(prompt.answer_prefix),
    )


def with_bad_token(prompt):
    return dataclasses.replace(prompt, segments=((40, BAD_TOKEN, 41), *prompt.segments))


@pytest.mark.parametrize("backend", ["flex", "sdpa", "eager"])
def test_a_row_with_logits_that_are_not_finite_is_an_error_and_its_neighbours_are_answered(
    make_model, make_engine, make_prompts, damaged_model, backend
):
    prompts = [without_bad_token(p) for p in make_prompts(9)]
    bad = 4
    prompts[bad] = with_bad_token(prompts[bad])
    engine = make_engine(damaged_model, backend=backend, strict=False)
    generations = engine.generate(prompts)
    ((failed,),) = generations.pop(bad)
    assert failed.finish_reason == "error"
    assert failed.error.startswith(
        "the logits of generated token 1 are not finite (NaN or infinity) in float32"
    )
    assert "Set model.dtype" in failed.error
    assert (failed.token_ids, failed.backend_used) == ((), "")
    good = prompts[:bad] + prompts[bad + 1 :]
    assert tokens(generations) == oracle_answers(make_model(), good, engine)
    # and the blocks that held NaN harm nobody who gets them next
    assert tokens(engine.generate(good)) == tokens(generations)


def test_it_is_an_error_of_every_method_and_of_that_row_only(make_engine, make_prompts, damaged_model):
    prompts = [without_bad_token(p) for p in make_prompts(3)]
    prompts[1] = dataclasses.replace(prompts[1], segments=((50, 51), (40, BAD_TOKEN)))
    engine = make_engine(damaged_model, methods=METHODS, backend="sdpa", strict=False, max_new_tokens=1)
    first, broken, last = engine.generate(prompts)
    assert not any(g.error for said in (*first, *last) for g in said)
    assert [bool(said[0].error) for said in broken] == [True] * len(METHODS)
    assert engine.runner.kv_cache.num_held == 0


def test_every_row_of_a_model_that_overflows_is_an_error(make_model, make_engine, make_prompts):
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight[7] = float("inf")
    engine = make_engine(model, methods=METHODS, backend="sdpa", strict=False)
    for by_method in engine.generate(make_prompts(5)):
        assert all("not finite" in g.error for said in by_method for g in said)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_bad_logit_is_seen_by_every_way_to_choose_and_reaches_no_other_sequence(value):
    logits = torch.randn(4, 20, generator=torch.Generator().manual_seed(0))
    good = logits.clone()
    logits[2, 11] = value
    assert greedy(logits).is_finite.tolist() == [True, True, False, True]
    ones = torch.ones(4)
    for nucleus in (False, True):
        drawn = draw(logits, ones, 0.9 * ones, 0.5 * ones, nucleus=nucleus)
        assert drawn.is_finite.tolist() == [True, True, False, True]
        assert (drawn.token_ids >= 0).all()
        assert (drawn.token_ids < 20).all()
    for fusion in ("mean", "max"):
        fuser = LogitsFuser(fusion, ["a", "a", "b", "b"], [0.5] * 4, logits.device)
        fused = fuser(logits.clone())
        assert fused.is_finite.tolist() == [True, True, False, False]
        assert fused.token_ids[:2].tolist() == fuser(good.clone()).token_ids[:2].tolist()


def test_all_logits_at_minus_infinity_are_not_finite():
    assert greedy(torch.full((1, 5), float("-inf"))).is_finite.tolist() == [False]
