"""FP8 weights and activations (W8A8), quantised when the model is loaded.

A weight has one scale an output channel, an activation one scale a token, found as it goes by. Both are
symmetric, in e4m3 (Micikevicius et al. 2022, arXiv:2209.05433). Embeddings, norms and lm_head are not
quantised.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from flexray.errors import ConfigError

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
"""The largest number of e4m3."""
LEAST_SCALE = 1e-12
"""Rows of zeros have a scale, too."""


class Linear(NamedTuple):
    """The tensors of a linear layer. Compiled graphs take them as inputs, so that one serves all layers."""

    weight: Tensor  # [out, in]; quantised: float8 on a GPU, float32 holding the same numbers on a CPU
    bias: Tensor | None  # [out]
    scale: Tensor | None = None  # float32 [1, out]: the weight is `weight * scale.T`; None: not quantised

    def rows(self, start: int, stop: int) -> Linear:
        """The linear layer of a range of output channels, which shares the memory."""
        return Linear(
            self.weight[start:stop],
            None if self.bias is None else self.bias[start:stop],
            None if self.scale is None else self.scale[:, start:stop],
        )


class Rows(NamedTuple):
    """What a linear layer multiplies: rows of numbers, quantised or not."""

    values: Tensor  # [..., in]
    scale: Tensor | None  # float32 [rows, 1]: the numbers are `values * scale`; None: not quantised
    dtype: torch.dtype  # of the numbers


def check_products(device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a GPU that cannot multiply what is quantised, before any row is answered.

    Raises:
        ConfigError: with its name.
    """
    if device.type != "cuda":
        return
    values = torch.zeros(16, 16, device=device).to(FP8)
    scales = torch.ones(16, 1, device=device)
    try:
        torch._scaled_mm(values, values.t(), scale_a=scales, scale_b=scales.t(), out_dtype=dtype)
    except (RuntimeError, ValueError) as e:
        name, kind = torch.cuda.get_device_name(device), str(dtype).removeprefix("torch.")
        raise ConfigError(
            f"model.quantization: fp8: {name} with torch {torch.__version__} does not multiply FP8 to {kind} "
            f"({str(e).splitlines()[0]}). Set model.dtype to bfloat16, take a GPU of compute capability 8.9 "
            "or 9.0 (such as L40S or H100), or leave the quantization out."
        ) from e


def quantize(linear: Linear) -> Linear:
    """A linear layer in FP8."""
    weight, scale = quantize_rows(linear.weight)
    if not weight.is_cuda:  # no FP8 products here: the same numbers in float32
        weight = weight.float()
    return Linear(weight, linear.bias, scale.t().contiguous())


def quantize_rows(x_TD: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers in FP8, [T, D], and the scale of each row, float32 [T, 1]; a row is their product."""
    x_TD = x_TD.float()
    scale = (x_TD.abs().amax(-1, keepdim=True) / FP8_MAX).clamp_min(LEAST_SCALE)
    return (x_TD / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8), scale


def apply_linear(x: Rows, linear: Linear) -> Tensor:
    """[..., in] to [..., out], in the dtype of x; both are quantised, or none."""
    if linear.scale is None:
        return nn.functional.linear(x.values, linear.weight, linear.bias)
    assert x.scale is not None
    values = x.values.reshape(-1, x.values.shape[-1])
    if linear.weight.dtype == FP8:
        out = torch._scaled_mm(
            values,
            linear.weight.t(),
            scale_a=x.scale,
            scale_b=linear.scale,
            out_dtype=x.dtype,
            use_fast_accum=True,
        )
    else:
        out = (values.float() @ linear.weight.t() * (x.scale * linear.scale)).to(x.dtype)
    if linear.bias is not None:
        out = out + linear.bias
    return out.reshape(*x.values.shape[:-1], -1)
