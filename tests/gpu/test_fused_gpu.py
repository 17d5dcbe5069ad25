"""The kernels between a layer's products against what they are to compute."""

import functools

import pytest
import torch

from flexray.models import fused
from flexray.models.attention import write
from flexray.models.decoder_layer import rotate
from flexray.models.flex import static_compile
from flexray.models.quantization import FP8_MAX, Linear, Rows

if torch.cuda.is_available():
    from flexray.models import few_rows, triton_kernels

compiled = functools.cache(static_compile)
SHAPES = [(3, 5, 96), (1, 7, 3072), (300, 1, 8192)]


def random(*shape, dtype):
    torch.manual_seed(0)
    return (torch.randn(*shape) * 3).to(dtype)


def same(found, expected, dtype):
    assert found.dtype == expected.dtype == dtype
    if found.scale is None:
        assert expected.scale is None
        last = 2 * torch.finfo(dtype).eps
        torch.testing.assert_close(found.values.cpu(), expected.values, rtol=last, atol=1e-5)
        return
    torch.testing.assert_close(found.scale.cpu(), expected.scale, rtol=1e-2, atol=0)
    step = expected.scale.view(*expected.values.shape[:-1], 1) * FP8_MAX / 14  # of the coarsest numbers
    off = found.values.cpu().float() - expected.values.float()
    off = off * expected.scale.view(*expected.values.shape[:-1], 1)
    assert (off.abs() <= step).all()
    assert (off != 0).float().mean() < 0.05  # a rounding may fall otherwise, now and then


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_norms_activations_and_quantising_are_those_of_the_cpu(shape, quantized, dtype):
    hidden, update = random(*shape, dtype=dtype), random(*shape, dtype=dtype).flip(0)
    weight = random(shape[-1], dtype=dtype)
    added, normed = compiled(fused.add_rms_norm)(
        hidden.cuda(), update.cuda(), weight.cuda(), 1e-5, quantized=quantized
    )
    added_cpu, normed_cpu = fused.add_rms_norm(hidden, update, weight, 1e-5, quantized=quantized)
    torch.testing.assert_close(added.cpu(), added_cpu, rtol=0, atol=0)
    same(normed, normed_cpu, dtype)
    rows = compiled(fused.as_rows)(hidden.cuda(), quantized=quantized)
    same(rows, fused.as_rows(hidden, quantized=quantized), dtype)
    how = {"is_silu": True, "quantized": quantized}
    silu, gate_up = torch.nn.SiLU(), torch.cat([hidden, update], dim=-1)
    same(compiled(fused.gated)(gate_up.cuda(), silu, **how), fused.gated(gate_up, silu, **how), dtype)


def test_rows_of_zeros_stay_zeros():
    x = torch.zeros(4, 96, device="cuda", dtype=torch.bfloat16)
    rows = compiled(fused.as_rows)(x, quantized=True)
    assert not rows.values.float().any()
    assert rows.scale.isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(bad):
    x = torch.ones(4, 96, device="cuda", dtype=torch.bfloat16)
    x[2, 5] = bad
    rows = compiled(fused.as_rows)(x, quantized=True)
    assert (rows.values.float() * rows.scale).isfinite().all(-1).tolist() == [True, True, False, True]


def few(rows, width, outputs, dtype):
    """Rows, and a linear layer's weight."""
    torch.manual_seed(0)
    x = torch.randn(rows, 1, width, device="cuda").to(dtype)
    return x, (torch.randn(outputs, width, device="cuda") * width**-0.5).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("width", "outputs"), [(512, 32), (3072, 5120), (8192, 3072)])
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_products_of_few_rows_are_those_of_float32(rows, width, outputs, dtype):
    x, weight = few(rows, width, outputs, dtype)
    assert few_rows.is_for(x[:, 0], weight)
    expected = x.double() @ weight.double().t()
    close = functools.partial(torch.testing.assert_close, rtol=2 * torch.finfo(dtype).eps, atol=1e-2)
    given, linear = Rows(x, None, dtype), Linear(weight, None)
    close(compiled(fused.product)(given, linear), expected.to(dtype))
    how = {"is_silu": True, "quantized": False}
    gated = compiled(fused.gated_product)(given, linear, torch.nn.SiLU(), **how)
    gate, up = expected.chunk(2, dim=-1)
    close(gated.values, (torch.nn.functional.silu(gate) * up).to(dtype))


def test_one_of_few_rows_is_multiplied_as_if_it_were_alone():
    x, weight = few(8, 2048, 4096, torch.bfloat16)
    x[5] = float("nan")
    product = compiled(fused.product)
    together = product(Rows(x, None, x.dtype), Linear(weight, None))
    assert together[5].isnan().all()
    for i in (0, 4, 7):
        alone = product(Rows(x[i : i + 1].clone(), None, x.dtype), Linear(weight, None))
        assert torch.equal(together[i : i + 1], alone)


@pytest.mark.parametrize(
    ("rows", "width", "outputs", "dtype"),
    [
        (9, 512, 32, torch.bfloat16),
        (8, 576, 32, torch.bfloat16),
        (8, 512, 48, torch.bfloat16),
        (8, 512, 32, torch.float32),
    ],
)
def test_other_products_are_left_to_torch(rows, width, outputs, dtype):
    x, weight = few(rows, width, outputs, dtype)
    assert not few_rows.is_for(x[:, 0], weight)
    found = compiled(fused.product)(Rows(x, None, x.dtype), Linear(weight, None))
    torch.testing.assert_close(found.double(), x.double() @ weight.double().t(), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim"), [(24, 8, 128), (9, 3, 64), (0, 8, 64), (5, 1, 96)]
)
def test_heads_are_rotated_and_written_where_they_belong(heads, kv_heads, head_dim):
    torch.manual_seed(0)
    rows, slots = 37, torch.randperm(64)[:37]
    states = torch.randn(rows, (heads + 2 * kv_heads) * head_dim)
    cos, sin = torch.randn(2, rows, head_dim)
    cache = torch.zeros(2, kv_heads, 64, head_dim)
    on_gpu = cache.cuda()
    query = triton_kernels.rotate_and_write(
        states.cuda(), cos.cuda(), sin.cuda(), slots.cuda(), *on_gpu, heads
    )
    parts = states.view(1, rows, -1, head_dim).split([heads, kv_heads, kv_heads], dim=2)
    write(cache[0], rotate(parts[1], cos[None], sin[None]), slots)
    write(cache[1], parts[2], slots)
    torch.testing.assert_close(on_gpu.cpu(), cache)
    torch.testing.assert_close(query.cpu(), rotate(parts[0], cos[None], sin[None])[0])
