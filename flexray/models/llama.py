"""The LLaMA that the engine runs: a transformers model's weights, our attention, our loop over the layers.

A decoder layer is written out here, since it must do what transformers' own does not: write K/V into the
paged cache, multiply by merged or quantised weights, and compute only keys and values in the last layer. One
layer serves LLaMA and the families that differ from it by biases, or by norms of queries and keys.
Shapes: B batch rows, T tokens a row, H query heads, K key/value heads, D numbers a head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM

from flexray.models.attention import AttentionMetadata, attend, static_compile, write
from flexray.models.quantization import Linear, apply_linear, quantize

LlamaLike = LlamaForCausalLM | MistralForCausalLM | Qwen2ForCausalLM | Qwen3ForCausalLM
"""The models whose layers are the one below; see `flexray.models.families`."""

Quantization = Literal["fp8"]
T = TypeVar("T")


class LayerWeights(NamedTuple):
    """The weights of one decoder layer; a compiled layer takes them as inputs."""

    input_norm: Tensor  # [hidden]
    qkv: Linear  # [(H + 2 K) D, hidden]
    query_norm: Tensor | None  # [D], of each head
    key_norm: Tensor | None  # [D]
    out: Linear  # [hidden, H D]
    mlp_norm: Tensor  # [hidden]
    gate_up: Linear  # [2 intermediate, hidden]
    down: Linear  # [hidden, intermediate]


@dataclass(frozen=True)
class LayerShape:
    """What all layers have in common."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float  # of the attention scores
    epsilon: float  # of the norms
    activation: Callable[[Tensor], Tensor]


class Llama:
    """A transformers model as the engine runs it; made by `patch`."""

    def __init__(self, model: LlamaLike, quantization: Quantization | None):
        self.model, self.config, self.dtype = model, model.config, model.dtype
        self.quantization = quantization
        self.device = next(model.parameters()).device
        first = model.model.layers[0]
        self.shape = LayerShape(
            num_heads=self.config.num_attention_heads,
            num_kv_heads=self.config.num_key_value_heads or self.config.num_attention_heads,
            head_dim=first.self_attn.head_dim,
            scale=first.self_attn.scaling,
            epsilon=self.config.rms_norm_eps,
            activation=first.mlp.act_fn,
        )
        self.layers = [_layer_weights(layer, quantization) for layer in model.model.layers]

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return len(self.layers)

    def forward(
        self,
        ids_BT: Tensor,
        positions_BT: Tensor,
        metadata: AttentionMetadata,
        keys: list[Tensor],
        values: list[Tensor],
    ) -> Tensor:
        """Hidden states before the last norm, [B, T, hidden].

        Args:
            ids_BT: int64 [B, T]. positions_BT: int64 [B, T], RoPE positions.
            metadata: this pass's attention.
            keys, values: the KV cache's, [K, P, D] for each layer; this pass's are written into them.
        """
        hidden, update, rotary = self._embed(ids_BT, positions_BT)
        for number in range(self.num_layers):
            hidden, update = self._layer(number, hidden, update, rotary, metadata, keys, values)
        return hidden + update

    def prefill(
        self,
        ids_BT: Tensor,
        positions_BT: Tensor,
        metadata: AttentionMetadata,
        keys: list[Tensor],
        values: list[Tensor],
        indices: Tensor,
    ) -> Tensor:
        """As `forward` with one batch row, but of the last layer only keys and values. `finish` takes on the
        tokens that something is sampled from.

        Args:
            indices: int64 [N], those tokens.

        Returns:
            Their hidden states before the last layer, [N, hidden].
        """
        hidden, update, rotary = self._embed(ids_BT, positions_BT)
        for number in range(self.num_layers - 1):
            hidden, update = self._layer(number, hidden, update, rotary, metadata, keys, values)
        run = _compiled(_write_keys_and_values) if _compiles(metadata) else _write_keys_and_values
        run(self.layers[-1], hidden, update, rotary, metadata.slot_mapping, keys[-1], values[-1], self.shape)
        return hidden[0, indices] + update[0, indices]

    def finish(
        self,
        hidden_BT: Tensor,
        positions_BT: Tensor,
        metadata: AttentionMetadata,
        keys: list[Tensor],
        values: list[Tensor],
    ) -> Tensor:
        """The last layer for hidden states of `prefill`, [B, T, hidden]."""
        rotary, update = self._rotary(hidden_BT, positions_BT), torch.zeros_like(hidden_BT)
        hidden, update = self._layer(self.num_layers - 1, hidden_BT, update, rotary, metadata, keys, values)
        return hidden + update

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states of `forward` or `finish`, [..., hidden], to logits [..., V]."""
        found: Tensor = self.model.lm_head(self.model.model.norm(hidden))
        return found

    def rotate_keys(self, keys_KCD: Tensor, offsets_M: Tensor) -> Tensor:
        """Context keys as they would be had the context started at each of M offsets: [M, K, C, D].

        RoPE rotations compose, R(p + o) = R(o) R(p), so the rotated keys are rotated on.
        """
        cos, sin = self._rotary(keys_KCD, offsets_M[:, None])  # [M, 1, D]
        scaling = getattr(self.model.model.rotary_emb, "attention_scaling", 1.0)  # in the keys already
        return _rotate(keys_KCD[None], cos / scaling, sin / scaling)  # as if K were the tokens, C the heads

    def _embed(self, ids_BT: Tensor, positions_BT: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Hidden states and what the first layer adds to them (see `_decoder_layer`), and the rotation."""
        hidden: Tensor = self.model.model.embed_tokens(ids_BT)
        return hidden, torch.zeros_like(hidden), self._rotary(hidden, positions_BT)

    def _rotary(self, like: Tensor, positions_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [B, T, D], by the model's own rotary embedding."""
        cos, sin = self.model.model.rotary_emb(like, position_ids=positions_BT)
        return cos, sin

    def _layer(
        self,
        number: int,
        hidden: Tensor,
        update: Tensor,
        rotary: tuple[Tensor, Tensor],
        metadata: AttentionMetadata,
        keys: list[Tensor],
        values: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        run = _compiled(_decoder_layer) if _compiles(metadata) else _decoder_layer
        return run(
            self.layers[number], hidden, update, rotary, metadata, keys[number], values[number], self.shape
        )


def patch(model: LlamaLike, quantization: Quantization | None = None) -> Llama:
    """The model as the engine runs it; the same object at a later call.

    Args:
        model: in eval mode, on its device. Its weights of queries, keys and values become views of one
            tensor, those of gate and up, too; it computes what it did before, unless they are quantised.
        quantization: "fp8": linear layers in FP8; those of `model` are emptied, so it cannot run any more.

    Raises:
        TypeError: a model of another family. It would be answered with, and wrongly.
    """
    if not isinstance(model, LlamaLike):
        raise TypeError(f"{type(model).__name__}: the loop over the layers is not right for it")
    assert getattr(model.config, "sliding_window", None) is None, "the mask has no windows"
    known: Llama | None = getattr(model, "_flexray", None)
    if known is None:
        known = Llama(model, quantization)
        model._flexray = known  # type: ignore[assignment]
    assert known.quantization == quantization, "the model has been patched with another quantisation"
    return known


def _decoder_layer(
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
    hidden = hidden + update
    H, K, D = shape.num_heads, shape.num_kv_heads, shape.head_dim
    states = apply_linear(_rms_norm(hidden, weights.input_norm, shape.epsilon), weights.qkv)
    query, key, value = states.split([H * D, K * D, K * D], dim=-1)
    _write_heads(weights, key, value, rotary, metadata.slot_mapping, key_cache, value_cache, shape)
    query = _rotate(_heads(query, weights.query_norm, shape), *rotary)
    out = attend(query.transpose(1, 2), key_cache, value_cache, shape.scale, metadata)
    hidden = hidden + apply_linear(out.transpose(1, 2).flatten(2), weights.out)
    normed = _rms_norm(hidden, weights.mlp_norm, shape.epsilon)
    gate, up = apply_linear(normed, weights.gate_up).chunk(2, dim=-1)
    return hidden, apply_linear(shape.activation(gate) * up, weights.down)


def _write_keys_and_values(
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
    normed = _rms_norm(hidden + update, weights.input_norm, shape.epsilon)
    states = apply_linear(normed, weights.qkv.rows(H * D, (H + 2 * K) * D))
    key, value = states.chunk(2, dim=-1)
    _write_heads(weights, key, value, rotary, slot_mapping, key_cache, value_cache, shape)


def _write_heads(
    weights: LayerWeights,
    key: Tensor,
    value: Tensor,
    rotary: tuple[Tensor, Tensor],
    slot_mapping: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    shape: LayerShape,
) -> None:
    """Put keys and values, [B, T, K * D], into the cache's slots [B * T]; keys rotated."""
    write(key_cache, _rotate(_heads(key, weights.key_norm, shape), *rotary), slot_mapping)
    write(value_cache, _heads(value, None, shape), slot_mapping)


def _heads(states: Tensor, norm: Tensor | None, shape: LayerShape) -> Tensor:
    """[B, T, heads * D] -> [B, T, heads, D]."""
    states = states.unflatten(-1, (-1, shape.head_dim))
    return states if norm is None else _rms_norm(states, norm, shape.epsilon)


def _rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Over the last dimension, in float32 (Zhang and Sennrich 2019, arXiv:1910.07467)."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return weight * wide.to(x.dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE (Su et al. 2021, arXiv:2104.09864) of x [B, T, heads, D] by cosines and sines [B, T, D]."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos[:, :, None] + turned * sin[:, :, None]


def _layer_weights(layer: Any, quantization: Quantization | None) -> LayerWeights:
    attention, mlp = layer.self_attn, layer.mlp
    linears = [
        _merge([attention.q_proj, attention.k_proj, attention.v_proj]),
        _merge([attention.o_proj]),
        _merge([mlp.gate_proj, mlp.up_proj]),
        _merge([mlp.down_proj]),
    ]
    if quantization == "fp8":
        linears = [quantize(linear) for linear in linears]
        for module in layer.modules():
            if isinstance(module, nn.Linear):
                module.weight.data = module.weight.data.new_empty(0)
    qkv, out, gate_up, down = linears
    query_norm, key_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
    return LayerWeights(
        input_norm=layer.input_layernorm.weight.detach(),
        qkv=qkv,
        query_norm=None if query_norm is None else query_norm.weight.detach(),
        key_norm=None if key_norm is None else key_norm.weight.detach(),
        out=out,
        mlp_norm=layer.post_attention_layernorm.weight.detach(),
        gate_up=gate_up,
        down=down,
    )


def _merge(modules: list[nn.Linear]) -> Linear:
    """One linear layer for several with the same input. The modules' tensors become views of its own."""
    if len(modules) == 1:
        (only,) = modules
        return Linear(only.weight.detach(), None if only.bias is None else only.bias.detach())
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


def _compiles(metadata: AttentionMetadata) -> bool:
    """Whether a layer is run as one graph. On a GPU that fuses norms, rotation and activation, which else
    cost as much memory traffic as the products; on a CPU it gains nothing."""
    return metadata.backend == "flex" and metadata.slot_mapping.is_cuda


@functools.cache
def _compiled(function: Callable[..., T]) -> Callable[..., T]:
    """One graph for each shape, the same for all layers."""
    return static_compile(function)
