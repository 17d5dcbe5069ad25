import pytest
import torch
from transformers import AttentionInterface

from flexray.models import llama
from flexray.models.attention import ATTENTION_NAME, flexray_attention
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
    ("heads", "kv_heads", "head_dim"), [(2, 2, 64), (4, 2, 64), (9, 3, 64), (6, 2, 128), (5, 1, 64)]
)
def test_any_ratio_of_query_to_key_heads_is_exact(
    make_model, make_engine, make_prompts, heads, kv_heads, head_dim
):
    prompts = make_prompts(6)
    shape = {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}
    engine = make_engine(make_model(**shape))
    assert tokens(engine.generate(prompts)) == oracle_answers(make_model(**shape), prompts, engine)


def test_the_attention_is_called_on_every_layer_with_its_own_module_and_arguments(
    make_model, make_engine, make_prompts
):
    model = make_model(heads=4, kv_heads=2)
    engine = make_engine(model, backend="sdpa")
    seen = []

    def watch(module, query, key, value, attention_mask, **kwargs):
        seen.append((module, tuple(query.shape), tuple(key.shape), kwargs["scaling"], attention_mask))
        return flexray_attention(module, query, key, value, attention_mask, **kwargs)

    AttentionInterface.register(ATTENTION_NAME, watch)
    try:
        engine.generate(make_prompts(1))
    finally:
        AttentionInterface.register(ATTENTION_NAME, flexray_attention)
    layers = [layer.self_attn for layer in model.model.layers]
    passes = len(seen) // len(layers)
    assert passes >= 2
    assert [module for module, *_ in seen] == layers * passes
    for module, query, key, scaling, mask in seen:
        assert query[1] == 4
        assert key[1] == 2
        assert query[2:] == key[2:]
        assert scaling == module.scaling == 64**-0.5
        assert mask is None


def test_flexattention_really_ran_in_each_layer_of_each_pass(make_model, make_engine, make_prompts):
    engine = make_engine(make_model())
    engine.generate(make_prompts(3))
    stats = engine.stats.to_dict()
    # context, prefill, decode; the counter is in the compiled graph
    prefill_passes = stats["attention_calls"]["flex"] // 2 - stats["decode_steps"]
    assert stats["decode_steps"] > 0
    assert prefill_passes >= 2
    assert stats["attention_calls"]["flex"] % 2 == 0
    assert stats["attention_calls"]["sdpa"] == stats["attention_calls"]["eager"] == 0
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_without_metadata_the_attention_refuses_rather_than_lose_the_isolation(make_model):
    model = make_model()
    llama.patch(model)
    with pytest.raises(ValueError, match="takes its mask from `metadata` only"):
        model(torch.tensor([[5, 6, 7]]))


def test_a_second_model_keeps_its_own_attention(make_model):
    model, other = make_model(), make_model()
    llama.patch(model)
    assert other.config._attn_implementation == "eager"
    assert other(torch.tensor([[5, 6, 7]])).logits.isfinite().all()


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
