"""On two GPUs: two ranks with compiled layers and CUDA graphs answer as one."""

import dataclasses
import random

import pytest
import torch
from transformers import LlamaConfig

from flexray.config import EngineConfig, GenerationConfig, MethodConfig, ModelConfig
from flexray.engine.parallel_engine import ParallelModel
from tests import oracles
from tests.expected import oracle_answers, tokens
from tests.gpu.test_engine_gpu import moved_by
from tests.random_models import save_model
from tests.unit.engine.test_determinism import METHODS, answers_of

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")


@pytest.fixture(autouse=True)
def _full_float32():
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=768,
        intermediate_size=1536,
        num_hidden_layers=3,
        num_attention_heads=12,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=4096,
        initializer_range=0.1,
        attention_bias=True,
        eos_token_id=2,
    )
    return save_model(tmp_path_factory.mktemp("model"), config)


def load(folder, ranks, dtype="bfloat16", quantization=None):
    return ParallelModel(ModelConfig(path=str(folder), dtype=dtype, quantization=quantization), ranks)


def engine_of(model, methods=None, **engine):
    sizes = {"max_num_seqs": 16, "max_num_batched_tokens": 512, "gpu_memory_utilization": 0.2}
    return model.make_engine(
        methods or [MethodConfig()],
        GenerationConfig(max_new_tokens=6),
        EngineConfig(strict=True, **{**sizes, **engine}),
    )


def test_in_float32_two_ranks_answer_as_one_and_as_the_oracle(folder, make_prompts):
    prompts, found = make_prompts(20), {}
    for ranks in (2, 1):
        model = load(folder, ranks, "float32")
        engine = engine_of(model)
        found[ranks] = tokens(engine.generate(prompts))  # compiles, captures
        for _ in range(2):
            assert tokens(engine.generate(prompts)) == found[ranks]  # replays CUDA graphs
        assert any(inputs.step.is_captured for inputs in engine.runner._decodes.values())
        model.close()
    assert found[2] == found[1]
    plain = load(folder, 1, "float32").model
    assert found[2] == oracle_answers(plain, prompts, engine)


def test_in_bfloat16_two_ranks_answer_as_one_but_for_near_ties(folder, make_prompts):
    prompts, found = make_prompts(64), {}
    for ranks in (2, 1):
        model = load(folder, ranks)
        found[ranks] = tokens(engine_of(model, max_num_seqs=64).generate(prompts))
        model.close()
    mode = {"layout": "shared_context", "positions": "restart"}
    plain, exact = load(folder, 1).model, load(folder, 1, "float32").model
    gaps, off = [], 0.0
    for prompt, mine, whole in zip(prompts, found[2], found[1], strict=True):
        if mine != whole:
            along = oracles.greedy_along(plain, prompt, list(mine), **mode)
            off = max(off, moved_by(plain, exact, prompt, list(mine), **mode))
            differ = zip(mine, along.token_ids, along.gaps, strict=True)
            gaps += [gap for own, best, gap in differ if own != best]
    print(f"{sum(a == b for a, b in zip(found[2], found[1], strict=True))}/64 the same, gaps {gaps}")
    assert max(gaps, default=0.0) <= off


@pytest.mark.parametrize("quantization", [None, "fp8"])
def test_a_row_of_two_ranks_depends_on_the_row_alone(folder, make_prompts, quantization):
    count = 1024
    prompts = [dataclasses.replace(p, row_id=str(i)) for i, p in enumerate(make_prompts(count))]
    model = load(folder, 2, quantization=quantization)
    engine = engine_of(model, METHODS, max_num_seqs=256, max_num_batched_tokens=2048)
    together = answers_of(engine, prompts)
    shuffled = list(range(count))
    random.Random(1).shuffle(shuffled)
    for size, asked in ((count, count), (100, 200), (1, 8)):
        for start in range(0, asked, size):
            call = shuffled[start : min(asked, start + size)]
            assert answers_of(engine, [prompts[i] for i in call]) == [together[i] for i in call]
    assert engine.rounding["tensor_parallel"] == 2
    model.close()
