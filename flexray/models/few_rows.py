"""Matrix products of few rows, on a GPU: most of what a decode step of few sequences takes.

Such a product takes as long as it takes to read the weights. So they are split over many small programs, each
of which has several tiles of its weights on their way while it multiplies one by all rows.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_ROWS = 8
# the fastest of those tried on an H100 (benchmarks/log.md); what is on its way fits into the shared memory of
# all GPUs from compute capability 8.0 on
PROGRAM_OUTPUTS = 16
TILE_INPUTS = 512
NUM_WARPS = 2  # each sums up a part of a tile's inputs
NUM_STAGES = 3


@triton.jit
def _multiply(
    x_ptr,
    weight_ptr,
    out_ptr,
    M,
    N,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    WARPS: tl.constexpr,
    STAGES: tl.constexpr,
    GATED: tl.constexpr,
):
    WIDTH: tl.constexpr = INPUTS // WARPS
    row = tl.arange(0, ROWS)
    output = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    part, column = tl.arange(0, WARPS)[:, None, None] * WIDTH, tl.arange(0, WIDTH)
    to_weight = weight_ptr + output[None, :, None].to(tl.int64) * K + part + column[None, None, :]
    to_up = to_weight + N.to(tl.int64) * K
    to_x = x_ptr + row[None, None, :] * K + part + column[None, :, None]
    sums = tl.zeros((WARPS, OUTPUTS, ROWS), dtype=tl.float32)
    up_sums = tl.zeros((WARPS, OUTPUTS, ROWS), dtype=tl.float32)
    for start in tl.range(0, K, INPUTS, num_stages=STAGES):
        weight = tl.load(to_weight + start, eviction_policy="evict_first")
        x = tl.load(to_x + start, mask=row[None, None, :] < M, other=0.0)
        sums = tl.dot(weight, x, sums)
        if GATED:
            up_weight = tl.load(to_up + start, eviction_policy="evict_first")
            up_sums = tl.dot(up_weight, x, up_sums)
    dtype = out_ptr.dtype.element_ty
    found = tl.sum(sums, axis=0)
    if GATED:
        gate = found.to(dtype).to(tl.float32)
        up = tl.sum(up_sums, axis=0).to(dtype).to(tl.float32)
        found = (gate * tl.sigmoid(gate)).to(dtype).to(tl.float32) * up
    place = row[None, :] * N + output[:, None]
    tl.store(out_ptr + place, found.to(dtype), mask=row[None, :] < M)


def is_for(x: Tensor, weight: Tensor) -> bool:
    """Whether `multiply` can do x, [rows, K], times a weight, [N, K], gated or not."""
    N, K = weight.shape
    is_divided = N % (2 * PROGRAM_OUTPUTS) == 0 and K % TILE_INPUTS == 0
    is_small = len(x) <= MOST_ROWS and x.dtype in (torch.bfloat16, torch.float16)
    return is_small and is_divided and weight.is_contiguous()


def multiply(x: Tensor, weight: Tensor, *, gated: bool = False) -> Tensor:
    """x [rows, K] times a weight [N, K]: [rows, N], summed in float32.

    Args:
        gated: of gates and what they let through, half of the weight each: silu(gate) * up, [rows, N / 2].
    """
    rows, K = x.shape
    N = len(weight) // 2 if gated else len(weight)
    out = x.new_empty((rows, N))
    _multiply[(N // PROGRAM_OUTPUTS,)](
        x,
        weight,
        out,
        rows,
        N,
        K=K,
        ROWS=MOST_ROWS,
        OUTPUTS=PROGRAM_OUTPUTS,
        INPUTS=TILE_INPUTS,
        WARPS=NUM_WARPS,
        STAGES=NUM_STAGES,
        GATED=gated,
        num_warps=NUM_WARPS,
    )
    return out
