"""What stands between a layer's products: sums, norms, activations, and quantising what they give; and the
products of few rows.

In a compiled layer on a GPU each is one kernel (flexray.models.triton_kernels, flexray.models.few_rows); here
is what they compute.
Shapes: [..., N], rows of N numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flexray.models.quantization import Linear, Rows, apply_linear, quantize_rows

if torch.cuda.is_available():
    from flexray.models import few_rows, triton_kernels


def has_kernels(x: Tensor) -> bool:
    """Whether the kernels are to be used: in compiled layers; other backends must run without a compiler."""
    return x.is_cuda and torch.compiler.is_compiling()


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """In float32 (Zhang and Sennrich 2019, arXiv:1910.07467)."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return weight * wide.to(x.dtype)


def add_rms_norm(
    hidden: Tensor, update: Tensor, weight: Tensor | None, epsilon: float, *, quantized: bool
) -> tuple[Tensor, Rows]:
    """hidden + update, and the norm of that (itself without a weight), quantised if so wanted."""
    if weight is None or not has_kernels(hidden):
        hidden = hidden + update
        normed = hidden if weight is None else rms_norm(hidden, weight, epsilon)
        return hidden, as_rows(normed, quantized=quantized)
    flat = _flat(hidden)
    added, out, scale = triton_kernels.add_rms_norm(
        flat, update.reshape(flat.shape), weight, epsilon, quantized=quantized
    )
    return added.view(hidden.shape), Rows(out.view(hidden.shape), scale, hidden.dtype)


def product(x: Rows, linear: Linear) -> Tensor:
    """[..., in] to [..., out]: see `apply_linear`."""
    if not _is_of_few_rows(x, linear):
        return apply_linear(x, linear)
    return few_rows.multiply(_flat(x.values), linear.weight).view(*x.values.shape[:-1], -1)


def gated_product(
    x: Rows, gate_up: Linear, activation: Callable[[Tensor], Tensor], *, is_silu: bool, quantized: bool
) -> Rows:
    """[..., in] to [..., N] by gates and what they let through, [2 N, in]: see `gated`."""
    if not (is_silu and _is_of_few_rows(x, gate_up)):
        return gated(apply_linear(x, gate_up), activation, is_silu=is_silu, quantized=quantized)
    found = few_rows.multiply(_flat(x.values), gate_up.weight, gated=True)
    return Rows(found.view(*x.values.shape[:-1], -1), None, x.dtype)


def _is_of_few_rows(x: Rows, linear: Linear) -> bool:
    plain = linear.scale is None and linear.bias is None
    return plain and has_kernels(x.values) and few_rows.is_for(_flat(x.values), linear.weight)


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def gated(gate_up: Tensor, activation: Callable[[Tensor], Tensor], *, is_silu: bool, quantized: bool) -> Rows:
    """Of [..., 2 N], gates and what they let through: activation(gate) * up, quantised if so wanted."""
    if quantized and is_silu and has_kernels(gate_up):
        out, scale = triton_kernels.silu_and_mul(_flat(gate_up))
        return Rows(out.view(*gate_up.shape[:-1], -1), scale, gate_up.dtype)
    gate, up = gate_up.chunk(2, dim=-1)
    return as_rows(activation(gate) * up, quantized=quantized)


def as_rows(x: Tensor, *, quantized: bool) -> Rows:
    """x as it is, or quantised."""
    if not quantized:
        return Rows(x, None, x.dtype)
    flat = _flat(x)
    values, scale = triton_kernels.quantize(flat) if has_kernels(x) else quantize_rows(flat)
    return Rows(values.view(x.shape), scale, x.dtype)
