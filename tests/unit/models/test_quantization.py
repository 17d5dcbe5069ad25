"""FP8 on a CPU: the numbers that a GPU multiplies, by products in float32."""

import pytest
import torch
from torch import nn

from flexray.config import EngineConfig, GenerationConfig, MethodConfig
from flexray.engine.engine import Engine
from flexray.models import llama
from flexray.models.fused import as_rows
from flexray.models.quantization import FP8, FP8_MAX, Linear, apply_linear, quantize, quantize_rows
from tests.expected import oracle_answers, tokens
from tests.random_models import ByteTokenizer


def dequantized(x):
    values, scale = quantize_rows(x)
    return values.float() * scale


class QuantizedLinear(nn.Module):
    """What a quantised layer is to compute, written out."""

    def __init__(self, linear):
        super().__init__()
        self.weight, self.bias = dequantized(linear.weight.detach()), linear.bias

    def forward(self, x):
        return nn.functional.linear(dequantized(x), self.weight, self.bias)


def quantize_by_hand(model):
    for layer in model.model.layers:
        for module in (layer.self_attn, layer.mlp):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(module, name, QuantizedLinear(child))
    return model


def test_each_row_has_its_own_scale_and_is_off_by_a_rounding_at_most():
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[1e-3], [1], [1e3], [0], [7]]
    )
    values, scale = quantize_rows(x)
    assert values.dtype == FP8
    assert values.float().abs().amax(-1)[[0, 1, 2, 4]].tolist() == [FP8_MAX] * 4
    assert not values[3].float().any()
    # e4m3 has 3 bits behind the point, and its smallest number is 2**-9
    off = (values.float() * scale - x).abs()
    assert (off <= torch.maximum(x.abs() * 2**-4, scale * 2**-10)).all()


@pytest.mark.parametrize("bias", [False, True])
def test_a_quantised_layer_multiplies_what_has_been_quantised(bias):
    torch.manual_seed(0)
    plain = nn.Linear(32, 24, bias=bias)
    linear = quantize(Linear(plain.weight.detach(), plain.bias.detach() if bias else None))
    x = torch.randn(2, 3, 32)
    rows, expected = as_rows(x, quantized=True), QuantizedLinear(plain)(x)
    torch.testing.assert_close(apply_linear(rows, linear), expected, rtol=1e-5, atol=1e-6)
    part = apply_linear(rows, linear.rows(8, 20))
    torch.testing.assert_close(part, expected[..., 8:20], rtol=1e-5, atol=1e-6)
    narrow = as_rows(x.bfloat16(), quantized=True)
    assert apply_linear(narrow, linear._replace(bias=None)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("layout", "positions", "backend"),
    [("shared_context", "restart", "flex"), ("full_prompt", "continuous", "eager")],
)
def test_a_quantised_engine_generates_what_the_quantised_oracle_does(
    make_model, make_prompts, layout, positions, backend
):
    prompts = make_prompts(6)
    methods = [MethodConfig(layout=layout, positions=positions)]
    engine = Engine(
        make_model(),
        ByteTokenizer(),
        methods,
        GenerationConfig(max_new_tokens=6),
        EngineConfig(backend=backend, strict=True, max_num_seqs=8, max_num_batched_tokens=256),
        "fp8",
    )
    found = tokens(engine.generate(prompts))
    assert found == oracle_answers(quantize_by_hand(make_model()), prompts, engine)
    assert found != oracle_answers(make_model(), prompts, engine), "a model too coarse to tell"


def test_the_weights_that_were_quantised_are_not_held_twice(make_model):
    model = make_model()
    patched = llama.patch(model, "fp8")
    assert not any(len(m.weight) for m in model.model.layers.modules() if isinstance(m, nn.Linear))
    assert len(model.lm_head.weight) == model.config.vocab_size
    assert llama.patch(model, "fp8") is patched
    with pytest.raises(AssertionError, match="another quantisation"):
        llama.patch(model)
