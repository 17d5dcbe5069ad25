import pytest
import torch

from tests.expected import oracle_answers, tokens

LAYOUTS = ["shared_context", "full_prompt"]
POSITIONS = ["restart", "continuous"]


@pytest.mark.parametrize("backend", ["flex", "sdpa", "eager"])
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_backend_generates_what_the_oracle_does(
    make_model, make_engine, make_prompts, layout, positions, backend
):
    prompts = make_prompts(12)
    engine = make_engine(make_model(), layout=layout, positions=positions, backend=backend)
    generations = engine.generate(prompts)
    assert tokens(generations) == oracle_answers(make_model(), prompts, engine)
    assert {g.backend_used for ((g,),) in generations} == {backend}


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim"),
    [  # besides 3 to 1 in most other tests; each is compiled for itself
        (2, 2, 64),
        (6, 2, 128),
        pytest.param(4, 2, 64, marks=pytest.mark.slow),
        pytest.param(9, 3, 64, marks=pytest.mark.slow),
        pytest.param(5, 1, 64, marks=pytest.mark.slow),
    ],
)
def test_any_ratio_of_query_to_key_heads_is_exact(
    make_model, make_engine, make_prompts, heads, kv_heads, head_dim
):
    prompts = make_prompts(6)
    shape = {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}
    engine = make_engine(make_model(**shape))
    assert tokens(engine.generate(prompts)) == oracle_answers(make_model(**shape), prompts, engine)


def test_flexattention_really_ran_in_each_layer_of_each_pass(make_model, make_engine, make_prompts):
    engine = make_engine(make_model())
    engine.generate(make_prompts(3))
    stats = engine.stats.to_dict()
    # the counter is in the compiled graph. Two layers: both in each step, one in each pass of context and
    # prompts, and the last one once for the tokens that answers begin at
    assert stats["decode_steps"] > 0
    assert stats["attention_calls"]["flex"] == 2 * stats["decode_steps"] + 2 + 1
    assert stats["attention_calls"]["sdpa"] == stats["attention_calls"]["eager"] == 0
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_the_model_that_an_engine_runs_computes_by_itself_what_it_did_before(
    make_model, make_engine, make_prompts
):
    model = make_model()
    ids = torch.tensor([[5, 6, 7]])
    before = model(ids).logits
    make_engine(model).generate(make_prompts(2))
    torch.testing.assert_close(model(ids).logits, before)


def test_one_paraphrase_is_standard_causal_attention(make_model, make_engine, make_prompts):
    prompts = [type(p)(p.context, p.segments[:1], p.answer_prefix) for p in make_prompts(4)]
    model = make_model()
    for layout in LAYOUTS:
        engine = make_engine(make_model(), layout=layout)
        stops = engine.stopping.stop_ids()
        for prompt, ((generation,),) in zip(prompts, engine.generate(prompts), strict=True):
            ids = [*prompt.context, *prompt.segments[0], *prompt.answer_prefix]
            expected = []
            while len(expected) < 6 and not (expected and expected[-1] in stops):
                expected.append(int(model(torch.tensor([ids + expected])).logits[0, -1].argmax()))
            assert list(generation.token_ids) == expected
