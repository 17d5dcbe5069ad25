"""(c) What the matrix products alone allow: all linear layers, and nothing else, at full batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from benchmarks.clock import median_seconds
from benchmarks.work import W1, Sizes, Work
from flexray.models.fused import as_rows
from flexray.models.quantization import Rows, apply_linear


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitResult:
    samples_per_second: float
    prefill_tokens_per_second: float
    prefill_tokens: int
    decode_seconds: float
    """Of one step, with lm_head."""
    decode_rows: int


@torch.no_grad()
def measure_limit(model: LlamaForCausalLM, work: Work, sizes: Sizes) -> LimitResult:
    """Samples per second if only the products took time, with the context computed once for all samples."""
    x_SD = torch.randn(sizes.gemm_tokens, model.config.hidden_size, device=model.device).to(model.dtype)
    y_BD = x_SD[: sizes.rows].clone()
    prefill = median_seconds(lambda: _products(model, x_SD), at_most=sizes.seconds)
    decode = median_seconds(lambda: _step(model, y_BD), at_most=sizes.seconds)
    rate = sizes.gemm_tokens / prefill
    sample = work.own_tokens / rate + work.new_tokens * decode / sizes.rows
    return LimitResult(
        samples_per_second=1 / sample,
        prefill_tokens_per_second=rate,
        prefill_tokens=sizes.gemm_tokens,
        decode_seconds=decode,
        decode_rows=sizes.rows,
    )


def _step(model: LlamaForCausalLM, x: Tensor) -> None:
    _products(model, x)
    model.lm_head(x)


def _products(model: LlamaForCausalLM, x: Tensor) -> None:
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        query = attention.q_proj(x)
        attention.k_proj(x)
        attention.v_proj(x)
        attention.o_proj(query)  # as wide as attention's output
        gate = mlp.gate_proj(x)
        mlp.up_proj(x)
        mlp.down_proj(gate)


def measure_split_limit(model: Any, sizes: Sizes) -> float:
    """Samples of W1 a second, of a rank of a model that `flexray.models.llama` has patched: merged products,
    in FP8 or not."""
    shape, quantized = model.shape, model.quantization is not None

    def rows(x: Tensor) -> Rows:
        return as_rows(x, quantized=quantized)

    hidden = torch.randn(sizes.gemm_tokens, model.config.hidden_size, device=model.device).to(model.dtype)
    wide = hidden.new_zeros(sizes.gemm_tokens, model.config.intermediate_size).normal_()
    heads = hidden.new_zeros(sizes.gemm_tokens, shape.num_heads * shape.head_dim).normal_()
    inputs = [rows(hidden), rows(heads), rows(hidden), rows(wide)]
    few = [rows(x[: sizes.rows].clone()) for x in (hidden, heads, hidden, wide)]

    @torch.no_grad()
    def products(given: list[Rows]) -> None:
        for layer in model.layers:
            for x, linear in zip(given, (layer.qkv, layer.out, layer.gate_up, layer.down), strict=True):
                apply_linear(x, linear)

    def step() -> None:
        products(few)
        model.model.lm_head(hidden[: sizes.rows])

    prefill = median_seconds(lambda: products(inputs), at_most=sizes.seconds)
    decode = median_seconds(step, at_most=sizes.seconds)
    return 1 / (W1.own_tokens * prefill / sizes.gemm_tokens + W1.new_tokens * decode / sizes.rows)
