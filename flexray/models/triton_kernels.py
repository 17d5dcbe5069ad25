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
    scale += tl.sum(values * 0.0, axis=0)  # NaN if any value is NaN or infinite: max and clamp pass over that
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


@triton.jit
def _rotate_and_write(
    states_ptr,
    cos_ptr,
    sin_ptr,
    slot_ptr,
    query_ptr,
    keys_ptr,
    values_ptr,
    P,
    H: tl.constexpr,
    K: tl.constexpr,
    HALF: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head, column = tl.arange(0, HEADS)[:, None], tl.arange(0, WIDTH)[None, :]
    inside = (head < H + 2 * K) & (column < HALF)
    place = token * (H + 2 * K) * 2 * HALF + head * 2 * HALF + column
    first = tl.load(states_ptr + place, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(states_ptr + place + HALF, mask=inside, other=0.0).to(tl.float32)
    angle, there = token * 2 * HALF + column, column < HALF
    cos_first = tl.load(cos_ptr + angle, mask=there, other=0.0).to(tl.float32)
    cos_second = tl.load(cos_ptr + angle + HALF, mask=there, other=0.0).to(tl.float32)
    sin_first = tl.load(sin_ptr + angle, mask=there, other=0.0).to(tl.float32)
    sin_second = tl.load(sin_ptr + angle + HALF, mask=there, other=0.0).to(tl.float32)
    turns = head < H + K  # values are not rotated
    turned_first = tl.where(turns, first * cos_first - second * sin_first, first)
    turned_second = tl.where(turns, second * cos_second + first * sin_second, second)
    dtype = keys_ptr.dtype.element_ty
    turned_first = turned_first.to(dtype)
    turned_second = turned_second.to(dtype)
    to_query = query_ptr + (token * H + head) * 2 * HALF + column
    tl.store(to_query, turned_first, mask=inside & (head < H))
    tl.store(to_query + HALF, turned_second, mask=inside & (head < H))
    slot = tl.load(slot_ptr + token)
    to_key = keys_ptr + ((head - H) * P + slot) * 2 * HALF + column
    is_key = inside & (head >= H) & turns
    tl.store(to_key, turned_first, mask=is_key)
    tl.store(to_key + HALF, turned_second, mask=is_key)
    to_value = values_ptr + ((head - H - K) * P + slot) * 2 * HALF + column
    is_value = inside & (head >= H + K)
    tl.store(to_value, turned_first, mask=is_value)
    tl.store(to_value + HALF, turned_second, mask=is_value)


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


def rotate_and_write(
    states: Tensor, cos: Tensor, sin: Tensor, slots: Tensor, keys: Tensor, values: Tensor, num_heads: int
) -> Tensor:
    """Of [rows, (H + 2 K) D], queries, keys and values: keys and values into the cache, [K, P, D], at slots,
    int64 [rows]; queries [rows, H, D]. Queries and keys are rotated by cosines and sines, [rows, D]."""
    rows, (K, P, D) = len(states), keys.shape
    query = states.new_empty((rows, num_heads, D))
    heads, width = triton.next_power_of_2(num_heads + 2 * K), triton.next_power_of_2(D // 2)
    _rotate_and_write[(rows,)](
        states,
        cos,
        sin,
        slots,
        query if num_heads else states,
        keys,
        values,
        P,
        H=num_heads,
        K=K,
        HALF=D // 2,
        HEADS=heads,
        WIDTH=width,
        num_warps=min(16, max(1, heads * width // 512)),
    )
    return query


def _quantized(like: Tensor, rows: int, N: int) -> tuple[Tensor, Tensor]:
    return like.new_empty((rows, N), dtype=FP8), like.new_empty((rows, 1), dtype=torch.float32)


def _sizes(N: int) -> dict[str, Any]:
    block = triton.next_power_of_2(N)
    return {"BLOCK": block, "num_warps": min(16, max(4, block // 512))}
