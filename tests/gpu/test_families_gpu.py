"""Families whose layers differ from LLaMA's, as compiled on a GPU, against the oracle of transformers."""

import pytest
import torch

from tests.unit.engine.test_methods import make_rated_prompts, oracle_says, tokens  # noqa: F401  fixture
from tests.unit.models.test_differences import CONFIGS, METHODS, logits_by, make_model, prompts  # noqa: F401


@pytest.mark.parametrize("name", CONFIGS)
def test_compiled_layers_of_each_family_say_what_the_oracle_says(make_engine, prompts, name):  # noqa: F811
    torch.backends.cuda.matmul.allow_tf32 = False
    engine = make_engine(
        make_model(name).cuda(), methods=METHODS, max_new_tokens=3, gpu_memory_utilization=0.1
    )
    first = tokens(engine.generate(prompts))  # compiles, captures
    assert tokens(engine.generate(prompts)) == first  # replays CUDA graphs
    plain, stops = make_model(name).cuda(), engine.stopping.stop_ids()
    for number, method in enumerate(METHODS):
        expected = [oracle_says(plain, p, method, stop_ids=stops, max_new_tokens=3) for p in prompts]
        assert [said[number] for said in first] == expected, method.name


@pytest.mark.parametrize("quantization", [None, "fp8"])
@pytest.mark.parametrize("name", CONFIGS)
def test_in_bfloat16_compiled_layers_are_as_near_as_plain_ones(name, quantization):
    ids = list(range(40, 100))
    with torch.no_grad():
        exact = make_model(name)(torch.tensor([ids]), use_cache=False).logits[0]
    plain = logits_by(make_model(name).bfloat16(), ids, quantization=quantization)[0].float()
    found = logits_by(make_model(name).bfloat16().cuda(), ids, quantization=quantization, backend="flex")[0]
    assert found.dtype == torch.bfloat16
    assert (found.float().cpu() - exact).norm() < 1.5 * (plain - exact).norm()
