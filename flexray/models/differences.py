"""What tells the families apart, as their configurations say it.

    mistral   nothing, without its window
    qwen2     biases of queries, keys and values
    qwen3     norms of queries and keys, head by head
    phi3      queries, keys and values are one weight, gate and up another
    smollm3   layers without RoPE (NoPE)
    granite   factors of embeddings, attention scores, updates and logits
    olmo2     norms behind attention and MLP, not before; norms of all heads of the queries, and of the keys

What is in separate weights is seen in the modules (`flexray.models.decoder_layer.layer_weights`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # it takes seconds to import
    from transformers import PreTrainedConfig

MULTIPLIERS = ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling")
"""The factors of Granite."""


def window(config: PreTrainedConfig) -> int | None:
    """The earlier tokens that a layer with a sliding window attends to; None: no layer has one."""
    if config.model_type == "smollm3" and not config.use_sliding_window:
        return None  # Qwen's configurations set it to null themselves
    found: int | None = getattr(config, "sliding_window", None)
    return found


class Multipliers(NamedTuple):
    """Granite's factors beside that of the attention scores."""

    embedding: float = 1.0
    residual: float = 1.0  # of what attention and MLP add to the hidden states
    logits_scaling: float = 1.0  # which logits are divided by


def multipliers(config: PreTrainedConfig) -> Multipliers:
    """A model's factors. Other models' keys of these names mean nothing."""
    if config.model_type != "granite":
        return Multipliers()
    return Multipliers(config.embedding_multiplier, config.residual_multiplier, config.logits_scaling)


def rotated_layers(config: PreTrainedConfig) -> list[bool]:
    """Of each layer, whether it has RoPE."""
    if config.model_type != "smollm3":
        return [True] * config.num_hidden_layers
    return [bool(has_rope) for has_rope in config.no_rope_layers]
