"""Which models flexray runs: LLaMA, and models that differ from it only inside a layer, or by a factor.

The engine has its own loop over the layers and its own mask. They fit a model of equal decoder layers which
all attend to everything before them, with nothing but a factor between the embedding and the first layer, or
behind the head. `flexray.models.differences` says what tells the families apart.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexray.errors import ModelError
from flexray.models.compat import rope_parameters
from flexray.models.differences import MULTIPLIERS, window

if TYPE_CHECKING:  # it takes seconds to import
    from transformers import LlamaForCausalLM, PreTrainedConfig

FAMILIES = {
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "phi3": "Phi3",
    "smollm3": "SmolLM3",
    "granite": "Granite",
    "olmo2": "Olmo2",
}
"""By `model_type`, the prefix of transformers' class names."""

FIXED_ROPES = ("default", "linear", "llama3", "yarn")
"""RoPE types whose rotation of a token depends only on its position, not on the length of its sequence."""

SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)
"""The keys of `config.json` that are whole numbers."""
OPTIONAL = ("num_key_value_heads", "head_dim")
"""Those of SIZES that may be null, since they follow from the others."""
COPY = "Copy config.json and weights from the same checkpoint."

_OTHERS = {
    "gemma": "it scales its embeddings and caps its scores",
    "mllama": "it attends to pictures",
    "olmo3": "most of its layers attend to a window only",
    **dict.fromkeys(
        ("moe", "mixtral", "deepseek", "llama4", "gpt_oss"), "its layers are mixtures of experts"
    ),
}
"""By part of a `model_type`, the reason why it is refused."""


def check_architecture(tree: dict[str, Any], file: Path) -> str:
    """Check the architecture in `config.json`; returns the prefix of its class names.

    Raises:
        ModelError: another architecture, or a model without a language-model head.
    """
    found = tree.get("model_type")
    prefix = FAMILIES.get(found) if isinstance(found, str) else None
    if prefix is None:
        kind = f"model_type {found!r}" if found else "no model_type"
        why = next((f" ({why})" for part, why in _OTHERS.items() if part in str(found)), "")
        raise ModelError(
            f"{file}: {kind}{why}. flexray runs LLaMA and models with its layers: {', '.join(FAMILIES)}."
        )
    architectures = tree.get("architectures")
    names = architectures if isinstance(architectures, list) else [architectures]
    if architectures and f"{prefix}ForCausalLM" not in names:
        raise ModelError(
            f"{file}: architectures {names!r:.200}. Only {prefix}ForCausalLM has the language-model head "
            "that generates an answer."
        )
    return prefix


def check_numbers(tree: dict[str, Any], file: Path) -> None:
    """Check the numbers of a `config.json` that are needed to build a model.

    Raises:
        ModelError: a size is no whole number above 0, key/value heads do not divide the heads, RoPE is no
            object, epsilon is not between 0 and 1, a factor of Granite is no number above 0, or SmolLM3's
            layers without RoPE are not said layer by layer.
    """
    given = {key: tree[key] for key in SIZES if key in tree}
    sizes = {key: value for key, value in given.items() if value is not None or key not in OPTIONAL}
    for key, value in sizes.items():
        if type(value) is not int or value < 1:
            raise ModelError(f"{file}: {key} is {value!r:.40}; it has to be a whole number above 0. {COPY}")
    heads, shared = sizes.get("num_attention_heads", 0), sizes.get("num_key_value_heads", 1)
    if heads % shared:
        raise ModelError(
            f"{file}: num_key_value_heads is {shared}, which does not divide num_attention_heads, {heads}. "
            f"{COPY}"
        )
    for key in ("rope_scaling", "rope_parameters"):
        if not isinstance(rope := tree.get(key), dict | None):
            raise ModelError(f"{file}: {key} is {rope!r:.80}; it has to be an object or null. {COPY}")
    epsilon = tree.get("rms_norm_eps", 1e-6)
    if type(epsilon) not in (int, float) or not 0 < epsilon < 1:
        raise ModelError(f"{file}: rms_norm_eps is {epsilon!r:.40}; it has to be above 0 and below 1. {COPY}")
    for key in MULTIPLIERS if tree.get("model_type") == "granite" else ():
        factor = tree.get(key, 1.0)
        if type(factor) not in (int, float) or not 0 < factor < 1e9:
            raise ModelError(f"{file}: {key} is {factor!r:.40}; it has to be a number above 0. {COPY}")
    if tree.get("model_type") == "smollm3":
        _check_rope_layers(tree, file)


def _check_rope_layers(tree: dict[str, Any], file: Path) -> None:
    """Check which layers of SmolLM3 have no RoPE; if it is not said, every `no_rope_layer_interval`-th."""
    given, every = tree.get("no_rope_layers"), tree.get("no_rope_layer_interval", 4)
    layers = tree.get("num_hidden_layers")
    if given is None and (type(every) is not int or every < 1):
        raise ModelError(
            f"{file}: no_rope_layer_interval is {every!r:.40}; it has to be a whole number above 0. {COPY}"
        )
    if given is None:
        return
    if not isinstance(given, list) or not all(type(each) is int and each in (0, 1) for each in given):
        raise ModelError(
            f"{file}: no_rope_layers is {given!r:.80}; it has to be a list with a 1 for each layer with RoPE "
            f"and a 0 for each without, or null. {COPY}"
        )
    if layers is not None and len(given) != layers:
        raise ModelError(
            f"{file}: no_rope_layers is of {len(given)} layers, and num_hidden_layers is {layers}. {COPY}"
        )


def check_layers(config: PreTrainedConfig, file: Path) -> None:
    """Check that every layer attends to all earlier tokens, and rotates each by its position only.

    Raises:
        ModelError: sliding windows, or a RoPE that changes with the length of the sequence.
    """
    tokens = window(config)
    others = sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention"})
    if tokens is not None or others:
        found = f"layers of type {', '.join(others)}" if others else "sliding-window attention"
        message = f"{file}: has {found}; here each answer looks at all that is before it."
        if tokens is not None:
            off = "use_sliding_window to false without layer_types"  # as Qwen and SmolLM3 have it
            off = "sliding_window to null" if config.model_type in ("mistral", "phi3") else off
            message += (
                f" In prompts no longer than the window it makes no difference: for those alone, set {off} "
                f"and max_position_embeddings to {tokens}."
            )
        raise ModelError(message)
    rope = rope_parameters(config).get("rope_type", "default")
    if rope not in FIXED_ROPES:
        raise ModelError(
            f"{file}: rope_type {rope!r} depends on how long a sequence is, and flexray packs many into one. "
            f"Known here: {', '.join(FIXED_ROPES)}."
        )


def check_rotary(model: LlamaForCausalLM, config: PreTrainedConfig, file: Path) -> None:
    """Check the angles by which a model rotates queries and keys, which follow from `config.json`.

    Args:
        model: of this configuration; its weights are not used.

    Raises:
        ModelError: the angles are no numbers, or do not fit the heads.
    """
    try:
        rotary = type(model.model.rotary_emb)(config)
        frequencies, scale = rotary.inv_freq, float(rotary.attention_scaling)
    except Exception as e:  # the types differ between RoPE types, and between transformers' versions
        problem = reason(e)
    else:
        sound = bool(frequencies.isfinite().all() and (frequencies > 0).all())
        problem = "" if sound and math.isfinite(scale) and scale > 0 else "angles that are no numbers above 0"
        head_dim = model.model.layers[0].self_attn.head_dim
        if 2 * frequencies.numel() != head_dim:
            problem = f"it rotates {2 * frequencies.numel()} dimensions, and heads have {head_dim}"
    if problem:
        raise ModelError(
            f"{file}: the RoPE cannot be used ({problem}): {rope_parameters(config)!r:.200}. "
            "Correct rope_theta, rope_scaling or rope_parameters."
        )


def kv_shape(config: PreTrainedConfig) -> tuple[int, int]:
    """The key/value heads of a layer, and the width of a head."""
    heads: int = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_key_value_heads or heads, width


def splits(config: PreTrainedConfig) -> bool:
    """Whether a part of the heads can be computed without the others, from a part of the rows of each weight.
    Not so with OLMo 2's norms, which are over all heads, and Phi-3's weights, which are of queries, keys and
    values together."""
    return config.model_type not in ("olmo2", "phi3")


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file of a model folder. Raises ModelError if there is none."""
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise ModelError(f"{file}: no such file. Is the folder whole?") from e
    except (OSError, ValueError, RecursionError) as e:  # ValueError: no JSON, or no UTF-8
        raise ModelError(f"{file}: cannot be read as JSON: {e}. It may be cut short: copy it again.") from e
    if not isinstance(tree, dict):
        raise ModelError(f"{file}: a JSON object is expected, found {type(tree).__name__}.")
    return tree


def reason(error: Exception) -> str:
    """An error of transformers on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split()):.300}".rstrip(". ")
