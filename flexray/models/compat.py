"""Differences between the supported releases of torch and transformers (see flexray.config.versions)."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from flexray.errors import ConfigError

if TYPE_CHECKING:  # they take seconds to import
    import torch
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


def check_flex(device: str, torch_version: str | None = None) -> None:
    """Refuse compiled FlexAttention if it is known to be broken.

    Raises:
        ConfigError: on a CPU before torch 2.13. There, kernels compiled for one number of threads are
            reused for another, and then write past their buffers.
    """
    found = torch_version or metadata.version("torch")
    if device == "cpu" and Version(found) < Version("2.13"):
        raise ConfigError(
            f"torch {found} cannot be trusted with FlexAttention on a CPU: its compiled kernels may write "
            "past their buffers. Install torch 2.13, or set engine.backend to sdpa, which has the same mask."
        )


def transformers_before(version: str) -> bool:
    """Whether the installed transformers is older than this."""
    return Version(metadata.version("transformers")) < Version(version)


def dtype_argument(dtype: torch.dtype) -> dict[str, Any]:
    """The dtype argument of `from_pretrained`: `torch_dtype` before transformers 4.56."""
    return {"torch_dtype" if transformers_before("4.56") else "dtype": dtype}


def rope_parameters(config: PreTrainedConfig) -> dict[str, Any]:
    """A configuration's RoPE as one dictionary, as transformers 5 has it; transformers 4 has `rope_theta` and
    `rope_scaling`."""
    if transformers_before("5.0.0rc0"):
        scaling = getattr(config, "rope_scaling", None) or {}
        kind = {"rope_type": scaling["type"]} if "type" in scaling else {}  # its old name, as in Phi-3
        return {"rope_theta": config.rope_theta, **kind, **scaling}
    return config.rope_parameters or {}


def rope_arguments(rope: dict[str, Any]) -> dict[str, Any]:
    """The constructor arguments for a configuration with these RoPE parameters."""
    if not transformers_before("5.0.0rc0"):
        return {"rope_parameters": rope}
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    plain = rope.get("rope_type", "default") == "default"
    return {"rope_theta": rope.get("rope_theta", 10000.0), "rope_scaling": None if plain else scaling}


def adopt_rope(config: PreTrainedConfig, tree: dict[str, Any]) -> None:
    """Set the RoPE of a config.json that transformers 5 wrote. transformers 4 does not know its key, and
    would use the default rotation."""
    if transformers_before("5.0.0rc0") and (rope := tree.get("rope_parameters")):
        for name, value in rope_arguments(rope).items():
            setattr(config, name, value)
        if "partial_rotary_factor" in rope:  # of Phi-3, a key of its own before
            config.partial_rotary_factor = rope["partial_rotary_factor"]


def tokenizer_class(tree: dict[str, Any], tokenizer_json: Path) -> type[PreTrainedTokenizerBase] | None:
    """The tokenizer class to load with, if transformers 4 would choose a wrong one; None: it finds the right
    one.

    transformers 5 writes a class name for fast tokenizers that transformers 4 does not know. For a folder
    with only a tokenizer.json, transformers 4 builds Llama 2's tokenizer, which adds its own tokens.

    Args:
        tree: the content of tokenizer_config.json; {}: there is none.
    """
    named = tree.get("tokenizer_class") == "TokenizersBackend"
    if transformers_before("5.0.0rc0") and (named or (not tree and tokenizer_json.is_file())):
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    return None
