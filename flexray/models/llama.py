"""The patched LLaMA: transformers' own modules, our attention, our loop over the layers.

The loop is `LlamaModel.forward` without its mask creation and caches: the mask is in the attention
metadata, and K/V live in the KV cache. Layers, norms, MLPs and rotary embedding are the model's own, so it
serves the models that differ from LLaMA in those.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM

from flexray.models.attention import ATTENTION_NAME, AttentionMetadata, register_attention, static_compile

LlamaLike = LlamaForCausalLM | MistralForCausalLM | Qwen2ForCausalLM | Qwen3ForCausalLM
"""The models that the loop is right for; see `flexray.models.families`."""


def patch(model: LlamaLike) -> None:
    """Point a model's attention layers at flexray's attention. Idempotent.

    The model must own its config object: a second model that shares it would be patched as well.

    Raises:
        TypeError: a model of another family. It would be answered with, and wrongly.
    """
    if not isinstance(model, LlamaLike):
        raise TypeError(f"{type(model).__name__}: the loop over the layers is not right for it")
    assert getattr(model.config, "sliding_window", None) is None, "the mask has no windows"
    register_attention()
    model.config._attn_implementation = ATTENTION_NAME
    for layer in model.model.layers:
        assert layer.self_attn.config is model.config


def forward(
    model: LlamaLike,
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
    body = model.model
    hidden: Tensor = body.embed_tokens(ids_BT)
    rotary = body.rotary_emb(hidden, position_ids=positions_BT)
    run = compiled_layer() if metadata.backend == "flex" and hidden.is_cuda else _layer
    for layer, key_cache, value_cache in zip(body.layers, keys, values, strict=True):
        hidden = run(layer, hidden, positions_BT, rotary, metadata, key_cache, value_cache)
    return hidden


def _layer(
    layer: nn.Module,
    hidden: Tensor,
    positions: Tensor,
    rotary: tuple[Tensor, Tensor],
    metadata: AttentionMetadata,
    key_cache: Tensor,
    value_cache: Tensor,
) -> Tensor:
    out = layer(
        hidden,
        attention_mask=None,
        position_ids=positions,
        position_embeddings=rotary,
        use_cache=False,
        metadata=metadata,
        key_cache=key_cache,
        value_cache=value_cache,
    )
    found: Tensor = out[0] if isinstance(out, tuple) else out
    return found


@functools.cache
def compiled_layer() -> Callable[..., Tensor]:
    """A decoder layer as one graph, the same for all layers. On a GPU that fuses norms, rotation and
    activation, which else cost as much memory traffic as the products; on a CPU it gains nothing."""
    return static_compile(_layer)


def logits(model: LlamaLike, hidden: Tensor) -> Tensor:
    """Hidden states of `forward`, [..., hidden], to logits [..., V]."""
    found: Tensor = model.lm_head(model.model.norm(hidden))
    return found


def rotate_keys(model: LlamaLike, keys_KCD: Tensor, offsets_M: Tensor) -> Tensor:
    """Context keys as they would be had the context started at each of M offsets: [M, K, C, D].

    RoPE rotations compose, R(p + o) = R(o) R(p), so the rotated keys are rotated on, by the rotary
    functions of the installed transformers.
    """
    rotary = model.model.rotary_emb
    cos, sin = rotary(keys_KCD, position_ids=offsets_M[:, None])  # [M, 1, D]
    scaling = getattr(rotary, "attention_scaling", 1.0)  # in the keys already
    keys = keys_KCD[None].expand(len(offsets_M), -1, -1, -1)
    rotated: Tensor
    _, rotated = modeling_of(model).apply_rotary_pos_emb(keys, keys, cos / scaling, sin / scaling)
    return rotated


def modeling_of(model: LlamaLike) -> ModuleType:
    """The transformers module that defines the model's class."""
    return importlib.import_module(type(model).__module__)


def num_kv_heads(model: LlamaLike) -> int:
    """K: key/value heads. A configuration without them has one for each query head."""
    return model.config.num_key_value_heads or model.config.num_attention_heads


def device_of(model: LlamaLike) -> torch.device:
    """The device of the weights."""
    return next(model.parameters()).device
