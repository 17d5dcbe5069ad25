"""Kernels for what stands between a layer's products, on a GPU: each reads a row once.

The compiler's own kernels read it twice. They would also add up in the order that was fastest on the node
where they were compiled, and answers must not depend on that: here it follows from the row's length alone.
Shapes: [rows, N], contiguous. What they compute: flexray.models.fused.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from flexray.models.quantization import FP8, FP8_MAX, LEAST_SCALE

MAX: tl.constexpr = tl.constexpr(FP8_MAX)
LEAST: tl.constexpr = tl.constexpr(LEAST_SCALE)


@triton.jit
def _store_quantized(values, out_ptr, scale_ptr, row, place, inside):
    scale = tl.maximum(tl.max(tl.abs(values), axis=0) / MAX, LEAST)
    tl.store(scale_ptr + row, scale)
    scaled = tl.clamp(values / scale, -MAX, MAX)
    tl.store(out_ptr + place, scaled.to(tl.float8e4nv), mask=inside)


@triton.jit
def _add_rms_norm(
    hidden_ptr,
    update_ptr,
    weight_ptr,
    sum_ptr,
    out_ptr,
    scale_ptr,
    N,
    EPSILON: tl.constexpr,
    BLOCK: tl.constexpr,
    QUANTIZED: tl.constexpr,
):
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside, place = column < N, row * N + column
    dtype = sum_ptr.dtype.element_ty
    hidden = tl.load(hidden_ptr + place, mask=inside, other=0.0).to(tl.float32)
    update = tl.load(update_ptr + place, mask=inside, other=0.0).to(tl.float32)
    added = (hidden + update).to(dtype)
    tl.store(sum_ptr + place, added, mask=inside)
    wide = added.to(tl.float32)
    inverse = 1.0 / tl.sqrt_rn(tl.sum(wide * wide, axis=0) / N + EPSILON)
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    normed = (weight * (wide * inverse).to(dtype).to(tl.float32)).to(dtype)
    if QUANTIZED:
        _store_quantized(normed.to(tl.float32), out_ptr, scale_ptr, row, place, inside)
    else:
        tl.store(out_ptr + place, normed, mask=inside)


@triton.jit
def _silu_and_mul(gate_up_ptr, out_ptr, scale_ptr, N, BLOCK: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = column < N
    dtype = gate_up_ptr.dtype.element_ty
    gate = tl.load(gate_up_ptr + row * 2 * N + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + row * 2 * N + N + column, mask=inside, other=0.0).to(tl.float32)
    product = (gate * tl.sigmoid(gate) * up).to(dtype)
    _store_quantized(product.to(tl.float32), out_ptr, scale_ptr, row, row * N + column, inside)


@triton.jit
def _quantize(x_ptr, out_ptr, scale_ptr, N, BLOCK: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside, place = column < N, row * N + column
    values = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    _store_quantized(values, out_ptr, scale_ptr, row, place, inside)


def add_rms_norm(
    hidden: Tensor, update: Tensor, weight: Tensor, epsilon: float, *, quantized: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The sum [rows, N], its norm, and the scales of that, float32 [rows, 1], if it is quantised."""
    rows, N = hidden.shape
    added = torch.empty_like(hidden)
    out = torch.empty_like(hidden, dtype=FP8) if quantized else torch.empty_like(hidden)
    scale = hidden.new_empty((rows, 1), dtype=torch.float32) if quantized else None
    _add_rms_norm[(rows,)](
        hidden,
        update,
        weight,
        added,
        out,
        scale if scale is not None else added,
        N,
        EPSILON=epsilon,
        QUANTIZED=quantized,
        **_sizes(N),
    )
    return added, out, scale


def silu_and_mul(gate_up: Tensor) -> tuple[Tensor, Tensor]:
    """Of [rows, 2 N]: [rows, N] quantised, and its scales."""
    rows, N = len(gate_up), gate_up.shape[-1] // 2
    out, scale = _quantized(gate_up, rows, N)
    _silu_and_mul[(rows,)](gate_up, out, scale, N, **_sizes(N))
    return out, scale


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """[rows, N] quantised, and its scales."""
    rows, N = x.shape
    out, scale = _quantized(x, rows, N)
    _quantize[(rows,)](x, out, scale, N, **_sizes(N))
    return out, scale


def _quantized(like: Tensor, rows: int, N: int) -> tuple[Tensor, Tensor]:
    return like.new_empty((rows, N), dtype=FP8), like.new_empty((rows, 1), dtype=torch.float32)


def _sizes(N: int) -> dict[str, Any]:
    block = triton.next_power_of_2(N)
    return {"BLOCK": block, "num_warps": min(16, max(4, block // 512))}
