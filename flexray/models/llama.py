"""The LLaMA that the engine runs: a transformers model's weights in our own loop over our own layers.

Embeddings, the head and the rotary embedding are the model's own modules.
Shapes: B batch rows, T tokens a row, K key/value heads, D numbers a head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from transformers import (
    GraniteForCausalLM,
    LlamaForCausalLM,
    MistralForCausalLM,
    Olmo2ForCausalLM,
    Phi3ForCausalLM,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
    SmolLM3ForCausalLM,
)
from transformers.activations import ACT2FN

from flexray.models.all_reduce import RankGroup
from flexray.models.attention import AttentionMetadata
from flexray.models.decoder_layer import (
    LayerShape,
    Quantization,
    decoder_layer,
    layer_weights,
    write_keys_and_values,
)
from flexray.models.differences import multipliers, rotated_layers, window
from flexray.models.families import kv_shape
from flexray.models.flex import static_compile
from flexray.models.fused import add_rms_norm
from flexray.models.quantization import check_products

LlamaLike = (
    LlamaForCausalLM
    | GraniteForCausalLM
    | MistralForCausalLM
    | Olmo2ForCausalLM
    | Phi3ForCausalLM
    | Qwen2ForCausalLM
    | Qwen3ForCausalLM
    | SmolLM3ForCausalLM
)
"""The models whose layers are ours; see `flexray.models.families`."""

HiddenStates = tuple[Tensor, Tensor]
"""[B, T, hidden], and an update that is still to be added to them: see `decoder_layer`."""
Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, [B, T, D]."""
T = TypeVar("T")


class Llama:
    """A transformers model as the engine runs it; made by `patch`."""

    def __init__(self, model: LlamaLike, quantization: Quantization | None, group: RankGroup | None = None):
        self.model, self.config, self.dtype = model, model.config, model.dtype
        self.quantization = quantization
        self.device = next(model.parameters()).device
        self.multipliers, self.rotated = multipliers(self.config), rotated_layers(self.config)
        num_kv_heads, head_dim = kv_shape(self.config)
        self.shape = LayerShape(
            num_heads=self.config.num_attention_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            scale=model.model.layers[0].self_attn.scaling,
            epsilon=self.config.rms_norm_eps,
            activation=ACT2FN[self.config.hidden_act],
            is_silu=self.config.hidden_act in ("silu", "swish"),
            residual_multiplier=self.multipliers.residual,
            group=group,
        )
        if quantization is not None:
            check_products(self.device, self.dtype)
        self.layers = [layer_weights(layer, quantization) for layer in model.model.layers]

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
        """Hidden states behind the last norm, [B, T, hidden].

        Args:
            ids_BT: int64 [B, T]. positions_BT: int64 [B, T], RoPE positions.
            metadata: this pass's attention.
            keys, values: the KV cache's, [K, P, D] for each layer; this pass's are written into them.
        """
        before = self._before_last_layer(ids_BT, positions_BT, metadata, keys, values)
        return self._normed(*self._layer(self.num_layers - 1, *before, metadata, keys, values), metadata)

    def prefill(
        self,
        ids_BT: Tensor,
        positions_BT: Tensor,
        metadata: AttentionMetadata,
        keys: list[Tensor],
        values: list[Tensor],
    ) -> HiddenStates:
        """As `forward`, but of the last layer only keys and values: hidden states before it. `finish` takes
        on those of the tokens that something is sampled from."""
        hidden, update, rotations = self._before_last_layer(ids_BT, positions_BT, metadata, keys, values)
        run = compiled(write_keys_and_values) if _compiles(metadata) else write_keys_and_values
        weights, slots = self.layers[-1], metadata.slot_mapping
        run(weights, hidden, update, rotations[-1], slots, keys[-1], values[-1], self.shape)
        return hidden, update

    def finish(
        self,
        hidden_BT: Tensor,
        positions_BT: Tensor,
        metadata: AttentionMetadata,
        keys: list[Tensor],
        values: list[Tensor],
    ) -> Tensor:
        """The last layer and norm for hidden states of `prefill`, [B, T, hidden]."""
        rotations, update = self._rotations(hidden_BT, positions_BT), torch.zeros_like(hidden_BT)
        states = self._layer(self.num_layers - 1, hidden_BT, update, rotations, metadata, keys, values)
        return self._normed(*states, metadata)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states of `forward` or `finish`, [..., hidden], to logits [..., V]."""
        found: Tensor = self.model.lm_head(hidden)
        scaling = self.multipliers.logits_scaling
        return found if scaling == 1 else found / scaling

    def offset_rotations(self, offsets_M: Tensor) -> list[Rotation]:
        """Of each layer the cosines and sines, [M, 1, D], that rotate keys on as if their tokens had started
        at each of M offsets: RoPE rotations compose, R(p + o) = R(o) R(p)."""
        cos, sin = self.model.model.rotary_emb(self.model.model.norm.weight, offsets_M[:, None])
        scaling = getattr(self.model.model.rotary_emb, "attention_scaling", 1.0)  # in the keys already
        return self._of_each_layer((cos / scaling, sin / scaling))

    def _before_last_layer(
        self,
        ids_BT: Tensor,
        positions_BT: Tensor,
        metadata: AttentionMetadata,
        keys: list[Tensor],
        values: list[Tensor],
    ) -> tuple[Tensor, Tensor, list[Rotation]]:
        """Hidden states that go into the last layer and what it adds to them (see `decoder_layer`), and the
        rotations."""
        hidden: Tensor = self.model.model.embed_tokens(ids_BT)
        if self.multipliers.embedding != 1:
            hidden = hidden * self.multipliers.embedding
        update, rotations = torch.zeros_like(hidden), self._rotations(hidden, positions_BT)
        for number in range(self.num_layers - 1):
            hidden, update = self._layer(number, hidden, update, rotations, metadata, keys, values)
        return hidden, update, rotations

    def _rotations(self, like: Tensor, positions_BT: Tensor) -> list[Rotation]:
        """Of each layer the cosines and sines, by the model's own rotary embedding."""
        return self._of_each_layer(self.model.model.rotary_emb(like, position_ids=positions_BT))

    def _of_each_layer(self, rotation: Rotation) -> list[Rotation]:
        """A layer without RoPE rotates by angles of 0: so all layers are one graph."""
        if all(self.rotated):
            return [rotation] * self.num_layers
        still = torch.ones_like(rotation[0]), torch.zeros_like(rotation[1])
        return [rotation if is_rotated else still for is_rotated in self.rotated]

    def _normed(self, hidden: Tensor, update: Tensor, metadata: AttentionMetadata) -> Tensor:
        """What the last layer gives, behind the last norm."""
        run = compiled(add_rms_norm) if _compiles(metadata) else add_rms_norm
        weight = self.model.model.norm.weight.detach()
        return run(hidden, update, weight, self.shape.epsilon, quantized=False)[1].values

    def _layer(
        self,
        number: int,
        hidden: Tensor,
        update: Tensor,
        rotations: list[Rotation],
        metadata: AttentionMetadata,
        keys: list[Tensor],
        values: list[Tensor],
    ) -> HiddenStates:
        run = compiled(decoder_layer) if _compiles(metadata) else decoder_layer
        weights, rotation = self.layers[number], rotations[number]
        return run(weights, hidden, update, rotation, metadata, keys[number], values[number], self.shape)


def patch(
    model: LlamaLike, quantization: Quantization | None = None, group: RankGroup | None = None
) -> Llama:
    """The model as the engine runs it; the same object at a later call.

    Args:
        model: in eval mode, on its device. Its weights of queries, keys and values become views of one
            tensor, those of gate and up, too; it computes what it did before, unless they are quantised.
        quantization: "fp8": linear layers in FP8; those of `model` are emptied, so it cannot run any more.
        group: the ranks that hold the model together; `model` is this rank's part. None: it is whole.

    Raises:
        TypeError: a model of another family. It would be answered with, and wrongly.
        ConfigError: the GPU cannot multiply what is quantised.
    """
    if not isinstance(model, LlamaLike):
        raise TypeError(f"{type(model).__name__}: the loop over the layers is not right for it")
    assert window(model.config) is None, "the mask has no windows"
    known: Llama | None = getattr(model, "_flexray", None)
    if known is None:
        known = Llama(model, quantization, group)
        model._flexray = known  # type: ignore[assignment]
    assert known.quantization == quantization, "the model has been patched with another quantisation"
    assert known.shape.group == group, "the model has been patched with other ranks"
    return known


def _compiles(metadata: AttentionMetadata) -> bool:
    """Whether a layer is run as one graph. On a GPU that fuses norms, rotation and activation, which else
    cost as much memory traffic as the products; on a CPU it gains nothing."""
    return metadata.backend == "flex" and metadata.slot_mapping.is_cuda


@functools.cache
def compiled(function: Callable[..., T], *, dynamic: bool = False) -> Callable[..., T]:
    """A function of tensors, such as one layer's: one graph for each shape, or one for all."""
    return static_compile(function, dynamic=dynamic)
