"""(c) What the matrix products alone allow: all linear layers, and nothing else, at full batches.

For calls of few samples: `python -m benchmarks.limit --shape 3b --samples 1,8,32`, on a GPU. Each layer's
products are those of the engine, merged: a step's of as many rows as its batches are padded to, the pass's
without padding, one after the other in a CUDA graph, so that the host has no part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from transformers import LlamaForCausalLM

from benchmarks.clock import median_seconds
from benchmarks.machine import describe_commit, describe_machine
from benchmarks.models import make_model
from benchmarks.work import GPU, SHAPES, W1, Sizes, Work
from flexray.config import EngineConfig
from flexray.engine.cuda_graph import CudaGraph
from flexray.engine.determinism import set_rounding
from flexray.engine.scheduler_config import plan_scheduler
from flexray.models import llama
from flexray.models.decoder_layer import LayerWeights
from flexray.models.fused import as_rows, product
from flexray.models.quantization import Linear, Rows


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
    prefill = median_seconds(merged_products(model, sizes.gemm_tokens), at_most=sizes.seconds)
    decode = median_seconds(merged_products(model, sizes.rows, head=True), at_most=sizes.seconds)
    return 1 / (W1.own_tokens * prefill / sizes.gemm_tokens + W1.new_tokens * decode / sizes.rows)


def merged_products(model: Any, count: int, *, head: bool = False) -> Callable[[], None]:
    """A function that multiplies `count` rows by the weights of all layers, and of lm_head."""
    shape, quantized = model.shape, model.quantization is not None

    def rows(width: int) -> Rows:
        x = torch.randn(count, width, device=model.device).to(model.dtype)
        return as_rows(x, quantized=quantized)

    multiply = llama.compiled(product) if model.device.type == "cuda" else product
    hidden, heads = rows(model.config.hidden_size), rows(shape.num_heads * shape.head_dim)
    wide, last = rows(model.config.intermediate_size), hidden.values.to(model.dtype)

    @torch.no_grad()
    def products() -> None:
        for layer in model.layers:
            for x, linear in zip((hidden, heads, hidden, wide), _linears(layer), strict=True):
                multiply(x, linear)
        if head:
            model.model.lm_head(last)

    return products


def _linears(layer: LayerWeights) -> tuple[Linear, ...]:
    return layer.qkv, layer.out, layer.gate_up, layer.down


def main(
    shape: Annotated[str, typer.Option(help=f"Of {', '.join(SHAPES)}.")] = "3b",
    samples: Annotated[str, typer.Option(help="Of W1, in a call, by commas.")] = "1,8,32",
) -> None:
    """Print a table: of a call, its pass and one of its steps, and how many samples a second they allow."""
    if not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU, whose limit this is")
    set_rounding(torch.device("cuda"))
    model: Any = llama.patch(make_model(shape, "cuda"))
    padded = plan_scheduler(model, EngineConfig(deterministic=False))
    weights = [linear.weight for layer in model.layers for linear in _linears(layer)]
    size = sum(weight.nbytes for weight in (*weights, model.model.lm_head.weight))
    print(
        f"{describe_machine()}\ncommit {describe_commit()}, {shape}, {size / 1e9:.2f} GB of weights in a step"
    )
    print("| samples a call | pass ms | step ms | weights read, GB/s | samples/s, at most |")
    print("|---:|---:|---:|---:|---:|")
    for count in map(int, samples.split(",")):
        one_pass = _graphed_seconds(merged_products(model, count * W1.own_tokens))
        step = _graphed_seconds(merged_products(model, padded.decode_bucket(count), head=True))
        # the first token comes with the pass
        rate = count / (one_pass + (W1.new_tokens - 1) * step)
        print(
            f"| {count} | {one_pass * 1e3:.2f} | {step * 1e3:.3f} | {size / step / 1e9:.0f} | {rate:.1f} |",
            flush=True,
        )


def _graphed_seconds(function: Callable[[], None]) -> float:
    graph, times = CudaGraph(function), 20
    for _ in range(3):
        graph()
    return median_seconds(lambda: [graph() for _ in range(times)], at_most=GPU.seconds) / times


if __name__ == "__main__":
    typer.run(main)
