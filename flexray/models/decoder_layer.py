"""One decoder layer, as the engine runs it: of LLaMA, and of the families that differ from it by biases, by
norms of queries and keys, by where its norms stand, or by a factor.

It is written out here, since it must do what transformers' own does not: write K/V into the paged cache,
multiply by merged or quantised weights, and compute only keys and values in the last layer.
Shapes: B batch rows, T tokens a row, H query heads, K key/value heads, D numbers a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from flexray.models.all_reduce import RankGroup, all_reduce
from flexray.models.attention import AttentionMetadata, attend, write
from flexray.models.fused import add_rms_norm, as_rows, gated_product, has_kernels, product, rms_norm
from flexray.models.quantization import Linear, apply_linear, quantize

if torch.cuda.is_available():
    from flexray.models import triton_kernels

Quantization = Literal["fp8"]


class LayerWeights(NamedTuple):
    """The weights of one decoder layer; a compiled layer takes them as inputs."""

    input_norm: Tensor | None  # [hidden]
    qkv: Linear  # [(H + 2 K) D, hidden]
    query_norm: Tensor | None  # [D], of each head; or [H D], of all together
    key_norm: Tensor | None  # [D] or [K D]
    out: Linear  # [hidden, H D]
    post_attention_norm: Tensor | None  # [hidden], of what attention adds
    mlp_norm: Tensor | None  # [hidden]
    gate_up: Linear  # [2 intermediate, hidden]
    down: Linear  # [hidden, intermediate]
    post_mlp_norm: Tensor | None  # [hidden], of what the MLP adds


@dataclass(frozen=True)
class LayerShape:
    """What all layers have in common."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float  # of the attention scores
    epsilon: float  # of the norms
    activation: Callable[[Tensor], Tensor]
    is_silu: bool  # what the activation is
    residual_multiplier: float = 1.0  # of what attention and MLP add
    group: RankGroup | None = None  # of tensor parallelism: `out` and `down` give this rank's part of a sum


def decoder_layer(
    weights: LayerWeights,
    hidden: Tensor,
    update: Tensor,
    rotary: tuple[Tensor, Tensor],
    metadata: AttentionMetadata,
    key_cache: Tensor,
    value_cache: Tensor,
    shape: LayerShape,
) -> tuple[Tensor, Tensor]:
    """Hidden states, less the update that the next layer adds to them: so that the sum and that layer's norm
    are one kernel, as in vLLM."""
    quantized = weights.qkv.scale is not None
    hidden, normed = add_rms_norm(hidden, update, weights.input_norm, shape.epsilon, quantized=quantized)
    states = product(normed, weights.qkv)
    query = _write_heads(weights, states, rotary, metadata.slot_mapping, key_cache, value_cache, shape)
    out = attend(query.transpose(1, 2), key_cache, value_cache, shape.scale, metadata)
    attended = product(as_rows(out.transpose(1, 2).flatten(2), quantized=quantized), weights.out)
    attended = _update(attended, weights.post_attention_norm, shape)
    hidden, normed = add_rms_norm(hidden, attended, weights.mlp_norm, shape.epsilon, quantized=quantized)
    through = gated_product(
        normed, weights.gate_up, shape.activation, is_silu=shape.is_silu, quantized=quantized
    )
    return hidden, _update(product(through, weights.down), weights.post_mlp_norm, shape)


def _update(part: Tensor, norm: Tensor | None, shape: LayerShape) -> Tensor:
    """What attention or MLP add to the hidden states, from what their last products give."""
    added = all_reduce(part, shape.group)
    if norm is not None:
        added = rms_norm(added, norm, shape.epsilon)
    return added if shape.residual_multiplier == 1 else added * shape.residual_multiplier


def write_keys_and_values(
    weights: LayerWeights,
    hidden: Tensor,
    update: Tensor,
    rotary: tuple[Tensor, Tensor],
    slot_mapping: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    shape: LayerShape,
) -> None:
    H, K, D = shape.num_heads, shape.num_kv_heads, shape.head_dim
    quantized = weights.qkv.scale is not None
    _, normed = add_rms_norm(hidden, update, weights.input_norm, shape.epsilon, quantized=quantized)
    states = apply_linear(normed, weights.qkv.rows(H * D, (H + 2 * K) * D))
    _write_heads(weights, states, rotary, slot_mapping, key_cache, value_cache, shape)


def _write_heads(
    weights: LayerWeights,
    states: Tensor,
    rotary: tuple[Tensor, Tensor],
    slot_mapping: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    shape: LayerShape,
) -> Tensor:
    """Put keys and values into the cache's slots [B * T]; keys rotated.

    Args:
        states: [B, T, (H + 2 K) D], queries, keys and values, or [B, T, 2 K D], without queries.

    Returns:
        The queries, rotated, [B, T, H, D].
    """
    K, D = shape.num_kv_heads, shape.head_dim
    H = states.shape[-1] // D - 2 * K
    if has_kernels(states) and weights.query_norm is None:
        cos, sin = (table.expand(*states.shape[:2], D).reshape(-1, D) for table in rotary)
        flat = states.reshape(-1, states.shape[-1])
        query = triton_kernels.rotate_and_write(flat, cos, sin, slot_mapping, key_cache, value_cache, H)
        return query.view(*states.shape[:2], H, D)
    query, key, value = states.split([H * D, K * D, K * D], dim=-1)
    write(key_cache, rotate(_heads(key, weights.key_norm, shape), *rotary), slot_mapping)
    write(value_cache, _heads(value, None, shape), slot_mapping)
    return rotate(_heads(query, weights.query_norm, shape), *rotary)


def _heads(states: Tensor, norm: Tensor | None, shape: LayerShape) -> Tensor:
    """[B, T, heads * D] -> [B, T, heads, D]."""
    if norm is not None:
        states = rms_norm(states.unflatten(-1, (-1, len(norm))), norm, shape.epsilon).flatten(-2)
    heads: Tensor = states.unflatten(-1, (-1, shape.head_dim))
    return heads


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE (Su et al. 2021, arXiv:2104.09864) of x [B, T, heads, D] by cosines and sines [B, T, D]."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return (x * cos[:, :, None] + turned * sin[:, :, None]).to(x.dtype)  # OLMo 2 has them in float32


def layer_weights(layer: Any, quantization: Quantization | None) -> LayerWeights:
    attention, mlp = layer.self_attn, layer.mlp
    linears = [
        _merge(attention, "qkv_proj", "q_proj", "k_proj", "v_proj"),
        _merge(attention, "o_proj"),
        _merge(mlp, "gate_up_proj", "gate_proj", "up_proj"),
        _merge(mlp, "down_proj"),
    ]
    if quantization == "fp8":
        linears = [quantize(linear) for linear in linears]
        for module in layer.modules():
            if isinstance(module, nn.Linear):
                module.weight.data = module.weight.data.new_empty(0)
    qkv, out, gate_up, down = linears
    # OLMo 2 has its norms behind attention and MLP, the others before
    is_before = hasattr(layer, "input_layernorm")
    return LayerWeights(
        input_norm=_norm(layer, "input_layernorm"),
        qkv=qkv,
        query_norm=_norm(attention, "q_norm"),
        key_norm=_norm(attention, "k_norm"),
        out=out,
        post_attention_norm=None if is_before else _norm(layer, "post_attention_layernorm"),
        mlp_norm=_norm(layer, "post_attention_layernorm") if is_before else None,
        gate_up=gate_up,
        down=down,
        post_mlp_norm=_norm(layer, "post_feedforward_layernorm"),
    )


def _norm(parent: nn.Module, name: str) -> Tensor | None:
    """The weight of a norm; None: there is none."""
    norm = getattr(parent, name, None)
    return None if norm is None else norm.weight.detach()


def _merge(parent: nn.Module, name: str, *parts: str) -> Linear:
    """The linear layer of a name; if it is in parts, one for them all, whose tensors become views of it."""
    if hasattr(parent, name):
        whole = getattr(parent, name)
        return Linear(whole.weight.detach(), None if whole.bias is None else whole.bias.detach())
    modules = [getattr(parent, part) for part in parts]
    weight = _merge_rows([module.weight for module in modules])
    biases = [module.bias for module in modules]
    if all(bias is None for bias in biases):
        return Linear(weight, None)
    assert all(bias is not None for bias in biases), "layers that are merged have all biases, or none"
    return Linear(weight, _merge_rows(biases))


def _merge_rows(tensors: Sequence[Tensor]) -> Tensor:
    merged = torch.cat([tensor.detach() for tensor in tensors])
    for tensor, part in zip(tensors, merged.split([len(t) for t in tensors]), strict=True):
        tensor.data = part
    return merged
