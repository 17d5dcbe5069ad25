"""The engine on a GPU: compiled layers and CUDA graphs against the oracle, in float32 and bfloat16."""

import dataclasses
import gc

import pytest
import torch

from flexray.config import (
    DataConfig,
    EngineConfig,
    FewShot,
    GenerationConfig,
    MethodConfig,
    PromptConfig,
)
from flexray.data import scan, to_questions
from flexray.engine.engine import Engine
from flexray.engine.scheduler_config import APART_IN_PREFILL
from flexray.methods import SamplingParams
from flexray.models import flex
from flexray.models.checkpoint import load_model
from flexray.prompts import PromptBuilder
from tests import oracles
from tests.conftest import PROJECT
from tests.expected import oracle_answers, tokens
from tests.unit.engine import test_candidates, test_few_shots
from tests.unit.engine.test_ape import AS_ATTENTION
from tests.unit.engine.test_methods import APE, DRAWS, LOGITS, OTHERS, make_rated_prompts  # noqa: F401  a fixture
from tests.unit.engine.test_methods import oracle_says as oracle_of_method
from tests.unit.engine.test_methods import tokens as tokens_of_all
from tests.unit.engine.test_sampler import oracle_says as oracle_draws
from tests.unit.engine.test_shared_prefixes import METHODS

MODES = [
    ("shared_context", "restart"),
    ("shared_context", "continuous"),
    ("full_prompt", "restart"),
    ("full_prompt", "continuous"),
]


def moved_by(coarse, exact, prompt, found, *, layout, positions):
    """How far bfloat16 moves a logit of the answer `found`, at most: between the oracles of two models. Two
    tokens whose logits are as near as that may be chosen either way."""
    tokens = oracles.stream(prompt, layout, positions, found[:-1])
    logits = [oracles.logits_of(m, tokens)[-len(found) :].float() for m in (coarse, exact)]
    return (logits[0] - logits[1]).abs().max().item()


@pytest.fixture(autouse=True)
def _full_float32():
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.mark.parametrize("attention_apart", [False, True])
def test_methods_of_logits_draws_concat_and_ape_say_what_their_oracles_say(
    make_brief_model,
    make_engine,
    make_rated_prompts,  # noqa: F811
    attention_apart,
):
    prompts = make_rated_prompts(20, num_context=600 if attention_apart else 70)
    methods = [*LOGITS, *DRAWS, *OTHERS, *APE]
    model = make_brief_model()
    expected = [[oracle_of_method(model, p, m, stop_ids={2, 10}) for m in methods] for p in prompts]
    engine = make_engine(
        make_brief_model().cuda(),
        methods=methods,
        max_new_tokens=8,
        max_num_seqs=64,
        gpu_memory_utilization=0.1,
    )
    found = tokens_of_all(engine.generate(prompts))
    for number, method in enumerate(methods):
        assert [said[number] for said in found] == [said[number] for said in expected], method.name
    assert engine.stats.calls["sdpa"] == engine.stats.calls["eager"] == 0


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(9, 3, 64), (24, 8, 128)])
@pytest.mark.parametrize(("layout", "positions"), MODES)
def test_float32_generates_what_the_oracle_does(
    make_model, make_engine, make_prompts, layout, positions, heads, kv_heads, head_dim
):
    prompts = make_prompts(20)
    shape = {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}
    engine = make_engine(
        make_model(**shape).cuda(),
        layout=layout,
        positions=positions,
        max_num_seqs=16,
        max_num_batched_tokens=512,
        gpu_memory_utilization=0.1,
    )
    first = tokens(engine.generate(prompts))  # compiles, captures
    assert tokens(engine.generate(prompts)) == first  # replays CUDA graphs
    assert first == oracle_answers(make_model(**shape).cuda(), prompts, engine)


@pytest.mark.parametrize("attention_apart", [False, True])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(9, 3, 64), (24, 8, 128)])
def test_adaptive_parallel_encoding_is_the_oracle_s_and_with_1_and_1_attention(
    make_model, make_engine, make_prompts, heads, kv_heads, head_dim, attention_apart
):
    head = (90, 91, 92)
    prompts = [
        dataclasses.replace(p, segments=tuple((*head, *s) for s in p.segments), num_head=len(head))
        for p in make_prompts(12, num_context=APART_IN_PREFILL + 50 if attention_apart else 70)
    ]
    shape = {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}
    methods = [MethodConfig(), AS_ATTENTION, *APE]
    engine = make_engine(
        make_model(**shape).cuda(), methods=methods, max_num_seqs=64, gpu_memory_utilization=0.1
    )
    first = tokens_of_all(engine.generate(prompts))  # compiles, captures
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert tokens_of_all(engine.generate(prompts)) == first  # replays CUDA graphs
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
    assert (engine.runner._apart_in_decode is not None) == attention_apart
    assert [said[1] for said in first] == [said[0] for said in first]
    model = make_model(**shape).cuda()
    for number, method in enumerate(methods[2:], start=2):
        rules = {"stop_ids": engine.stopping.stop_ids(), "max_new_tokens": 6}
        expected = [oracle_of_method(model, p, method, **rules) for p in prompts]
        assert [said[number] for said in first] == expected, method.name
    assert engine.stats.calls["sdpa"] == engine.stats.calls["eager"] == 0


@pytest.mark.parametrize("num_head", [0, 3])
def test_a_long_context_that_is_attended_to_apart_changes_no_answer(
    make_model, make_engine, make_prompts, num_head
):
    prompts = [
        dataclasses.replace(
            p,
            segments=tuple((90, 91, 92, *s) for s in p.segments),
            num_head=num_head,
            confidences=tuple(1 / (i + 2) for i in range(len(p.segments))),
        )
        for p in make_prompts(10, num_context=APART_IN_PREFILL + 50)
    ]
    sizes = {"methods": METHODS, "max_num_seqs": 64, "gpu_memory_utilization": 0.1}
    engine = make_engine(make_model().cuda(), **sizes)
    apart = tokens_of_all(engine.generate(prompts))
    assert engine.runner._apart_in_prefill == engine.runner._apart_in_decode == (32, 32 + 544)
    assert tokens_of_all(engine.generate(prompts)) == apart  # replays CUDA graphs
    whole = make_engine(make_model().cuda(), **sizes, backend="sdpa", share_prefixes=False)
    assert apart == tokens_of_all(whole.generate(prompts))


@pytest.mark.parametrize("num_plain", [21, APART_IN_PREFILL])
def test_few_shots_in_several_paraphrases_are_those_of_the_oracle(make_model, make_engine, num_plain):
    prompts, model = test_few_shots.make_prompts_with_few_shots(num_plain), make_model()
    methods = test_few_shots.METHODS
    sizes = {"methods": methods, "max_num_seqs": 64, "gpu_memory_utilization": 0.1}
    engine = make_engine(make_model().cuda(), **sizes)
    said = tokens_of_all(engine.generate(prompts))
    assert tokens_of_all(engine.generate(prompts)) == said  # replays CUDA graphs
    for prompt, by_method in zip(prompts, said, strict=True):
        for method, (answer,) in zip(methods, by_method, strict=True):
            best = test_few_shots.logits_along(model, prompt, method, answer).argmax(-1)
            assert best.tolist() == list(answer), method.name


def test_candidates_are_scored_as_by_the_oracle(make_brief_model, make_engine, make_prompts):
    prompts = test_candidates.with_candidates(make_prompts(12, num_context=20, longest=10))
    methods, model = test_candidates.METHODS, make_brief_model()
    engine = make_engine(
        make_brief_model().cuda(),
        methods=methods,
        max_new_tokens=test_candidates.NEW,
        max_num_seqs=64,
        gpu_memory_utilization=0.1,
        generation=test_candidates.GIVEN | {"length_penalty": 0.0},
    )
    said = engine.generate(prompts)
    again = engine.generate(prompts)  # replays CUDA graphs
    for prompt, by_method, once_more in zip(prompts, said, again, strict=True):
        for method, answers, same in zip(methods, by_method, once_more, strict=True):
            expected = test_candidates.oracle_says(model, prompt, method)
            for answer, sums, twin in zip(answers, expected, same, strict=True):
                assert answer.candidate_scores == pytest.approx(sums, abs=1e-3), method.name
                assert twin.candidate_scores == answer.candidate_scores


@pytest.mark.parametrize("shape", [(1, 256), (64, 1)])
def test_attention_to_all_keys_is_softmax_in_bfloat16(shape):
    B, T = shape
    query = torch.randn(B, T, 24, 128, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
    cache = torch.randn(2, 8, 2048, 128, device="cuda", dtype=torch.bfloat16)
    keys, values = cache[:, :, 32:672]
    out, lse = flex.attend_to_all(query, keys, values, 0.1)
    wide_keys, wide_values = (x.float().repeat_interleave(3, 0) for x in (keys, values))
    scores = query.float() @ wide_keys.transpose(1, 2) * 0.1
    torch.testing.assert_close(lse, scores.logsumexp(-1), rtol=0, atol=2e-3)
    torch.testing.assert_close(out.float(), scores.softmax(-1) @ wide_values, rtol=0.02, atol=0.01)


def test_drawn_answers_are_those_of_the_oracle(make_model, make_engine, make_prompts):
    prompts = [dataclasses.replace(p, row_id=str(i)) for i, p in enumerate(make_prompts(6))]
    methods = [MethodConfig(kind="sampled", samples=3, temperature=0.9, top_p=0.8), MethodConfig()]
    engine = make_engine(make_model().cuda(), methods=methods, max_num_seqs=16, gpu_memory_utilization=0.1)
    first = tokens_of_all(engine.generate(prompts))  # compiles, captures
    assert tokens_of_all(engine.generate(prompts)) == first  # replays CUDA graphs
    plain, stops = make_model().cuda(), engine.stopping.stop_ids()
    for prompt, (drawn, _) in zip(prompts, first, strict=True):
        assert list(map(list, drawn)) == [
            oracle_draws(plain, prompt, 0, SamplingParams(0.9, 0.8, index=i), stops) for i in range(3)
        ]


def test_few_sequences_whose_attention_is_split_are_those_of_the_oracle_also_beside_a_broken_row(
    make_model, make_engine, make_prompts
):
    prompts = make_prompts(5, longest=40)
    used = {
        token for p in prompts for segment in (p.context, *p.segments, p.answer_prefix) for token in segment
    }
    plain, model = make_model(kv_heads=1).cuda(), make_model(kv_heads=1).cuda()
    engine = make_engine(make_model(kv_heads=1).cuda(), max_num_seqs=16, gpu_memory_utilization=0.1)
    expected = tokens(engine.generate(prompts))
    assert expected == oracle_answers(plain, prompts, engine)
    assert {inputs.splits for inputs in engine.runner._decodes.values()} == {8}
    said = {token for answer in expected for token in answer}
    unused = max(set(range(256)) - used - said)
    with torch.no_grad():
        model.model.embed_tokens.weight[unused] = float("nan")
    bad = dataclasses.replace(prompts[0], segments=((40, 41), (40, unused), (40, 41, 42)))
    engine = make_engine(model, max_num_seqs=16, gpu_memory_utilization=0.1, strict=False)
    for _ in range(3):  # replays CUDA graphs
        generations = engine.generate([prompts[0], bad, *prompts[1:]])
        assert generations.pop(1)[0][0].error
        assert tokens(generations) == expected


def test_graphs_stay_the_same_after_warm_up(make_model, make_engine, make_prompts):
    engine = make_engine(
        make_model().cuda(), max_num_seqs=16, max_num_batched_tokens=512, gpu_memory_utilization=0.1
    )
    for count in (1, 9, 16):
        engine.generate(make_prompts(count))
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for seed in range(1, 6):
        engine.generate(make_prompts(seed * 7, longest=5 * seed, seed=seed))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def test_memory_is_flat_over_many_rows(make_model, make_engine, make_prompts):
    engine = make_engine(make_model().cuda(), max_num_seqs=256, max_new_tokens=4, gpu_memory_utilization=0.1)
    prompts = make_prompts(1000, longest=12)
    for _ in range(3):  # compiles, captures a step, captures what follows it
        engine.generate(prompts)
    torch.cuda.synchronize()
    gc.collect()  # what earlier tests have left
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for _ in range(10):
        engine.generate(prompts)
    torch.cuda.synchronize()
    assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) == before


def test_out_of_memory_halves_the_rows_at_once_and_answers_all(make_model, make_engine, make_prompts):
    """A real one: another tensor takes the memory that the budget had counted on."""
    engine = make_engine(make_model().cuda(), max_num_seqs=64, strict=False)
    free, _ = torch.cuda.mem_get_info()
    hog = torch.empty(free - 96 * 2**20, dtype=torch.uint8, device="cuda")
    try:
        prompts = make_prompts(64)
        generations = engine.generate(prompts)
    finally:
        del hog
        torch.cuda.empty_cache()
    assert not [g.error for ((g,),) in generations if g.error]
    assert tokens(generations) == oracle_answers(make_model().cuda(), prompts, engine)


@pytest.mark.parametrize(("layout", "positions"), MODES)
def test_bfloat16_rows_are_the_bfloat16_oracles_but_for_near_ties(smollm2, layout, positions):
    """Two bfloat16 computations that round at different places part where two logits are a rounding
    apart; how often, the model decides. So each difference must be such a near-tie, and the engine must
    be as close to the float32 oracle as the bfloat16 oracle is."""
    patched, tokenizer = load_model(smollm2, dtype="bfloat16", device="cuda")
    plain, _ = load_model(smollm2, dtype="bfloat16", device="cuda", attn_implementation="sdpa")
    coarse, _ = load_model(smollm2, dtype="bfloat16", device="cuda", attn_implementation="eager")
    exact, _ = load_model(smollm2, dtype="float32", device="cuda", attn_implementation="eager")
    config = DataConfig(name="demo", files=[str(PROJECT / "jobs" / "data" / "demo.jsonl")])
    questions = to_questions(scan(config), dataset="demo", split="test")
    prompt = PromptConfig(
        instruction="Answer each question with a short phrase.",
        few_shots=(FewShot(question="What is the capital of Finland?", answer="Helsinki"),),
    )
    methods = [MethodConfig(layout=layout, positions=positions)]
    generation = GenerationConfig(max_new_tokens=8)
    builder = PromptBuilder(tokenizer, prompt, methods, generation, 8192, vocab_size=len(tokenizer))
    prompts = [builder.build(q) for q in questions]
    config = EngineConfig(strict=True, gpu_memory_utilization=0.2)
    engine = Engine(patched, tokenizer, methods, generation, config)
    mode = {"layout": layout, "positions": positions}
    gaps, same, same_coarse, engine_exact, oracle_exact, off = [], 0, 0, 0, 0, 0.0
    for p, ((answer,),) in zip(prompts, engine.generate(prompts), strict=True):
        found = list(answer.token_ids)
        oracle = oracles.greedy_along(plain, p, found, **mode)
        truth = oracles.greedy_along(exact, p, found, **mode).token_ids
        same += found == oracle.token_ids
        same_coarse += found == oracles.greedy_along(coarse, p, found, **mode).token_ids
        engine_exact += found == truth
        oracle_exact += oracle.token_ids == truth
        gaps += [g for a, b, g in zip(found, oracle.token_ids, oracle.gaps, strict=True) if a != b]
        off = max(off, moved_by(plain, exact, p, found, **mode))
    print(
        f"{layout}/{positions}: {same}/{len(prompts)} rows the same, gaps of the others {gaps}; "
        f"{same_coarse} with an oracle whose scores are rounded to bfloat16; "
        f"equal to float32: engine {engine_exact}, bfloat16 oracle {oracle_exact}, whose logits are off by "
        f"up to {off}"
    )
    assert max(gaps, default=0.0) <= off
    assert engine_exact >= oracle_exact - 0.05 * len(prompts)


@pytest.mark.parametrize("layout", ["shared_context", "full_prompt"])
def test_what_paraphrases_begin_with_alike_is_shared_and_the_answers_stay_the_oracle_s(
    make_model, make_engine, make_prompts, layout
):
    head = (40, 41, 42)
    prompts = [
        dataclasses.replace(
            p,
            segments=tuple((*head, *p.segments[0][: 5 * i], *s) for i, s in enumerate(p.segments)),
            num_head=len(head),
        )
        for p in make_prompts(20)
    ]
    engine = make_engine(
        make_model().cuda(),
        layout=layout,
        max_num_seqs=16,
        max_num_batched_tokens=512,
        gpu_memory_utilization=0.1,
    )
    first = tokens(engine.generate(prompts))  # compiles, captures
    assert tokens(engine.generate(prompts)) == first  # replays CUDA graphs
    assert first == oracle_answers(make_model().cuda(), prompts, engine)
    assert engine.stats.shared_tokens > 0
