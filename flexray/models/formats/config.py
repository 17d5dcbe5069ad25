"""The `quantization_config` of a config.json: which format the weights are in.

Which modules are quantised is seen in the files, so the lists of those that are not (`ignore`,
`modules_to_not_convert`) are not read; nor is how activations and caches are quantised, as they are not here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flexray.errors import ModelError, shown
from flexray.models.formats.format import Format
from flexray.models.formats.fp8 import FP8
from flexray.models.formats.int4 import AWQ, GPTQ, Packed

KNOWN = "compressed-tensors (float-quantized or pack-quantized), fbgemm_fp8, fp8, awq or gptq (4 bits)"
DEFAULT_BLOCK = [128, 128]


class Refused(Exception):
    """Why a format is not read; the key and the value that say so."""


def find_format(tree: dict[str, Any], file: Path) -> Format | None:
    """The format of a checkpoint's quantised weights; None: they are not quantised.

    Args:
        tree: the content of config.json.
        file: its place, for messages.

    Raises:
        ModelError: it is quantised in a way that is not read here.
    """
    key = next((key for key in ("quantization_config", "compression_config") if tree.get(key)), None)
    if key is None:
        return None
    config = tree[key]
    method = config.get("quant_method", "unknown") if isinstance(config, dict) else "unknown"
    try:
        if not isinstance(method, str) or method not in _METHODS:
            raise Refused("which is not known")
        return _METHODS[method](config)
    except Refused as e:
        raise ModelError(
            f"{file}: the weights are quantised in a way that is not read here: quant_method {method!r:.80}, "
            f"{e}. Give the unquantised checkpoint, dequantise it first, or take one in {KNOWN}."
        ) from e


def _compressed_tensors(config: dict[str, Any]) -> Format:
    if (sparsity := config.get("sparsity_config")) and _of(sparsity, "format", "dense") != "dense":
        raise Refused(f"sparsity_config is {shown(sparsity, 80)}")
    if transform := config.get("transform_config"):  # activations would have to be rotated, too
        raise Refused(f"transform_config is {shown(transform, 80)}")
    groups = config.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise Refused(f"config_groups is {shown(groups, 80)}")
    kinds = {_compressed_weights(group, config.get("format")) for group in groups.values()}
    if len(kinds) > 1:
        raise Refused(f"config_groups quantise weights in {len(kinds)} ways")
    ((form, size, symmetric),) = kinds
    if form == "pack-quantized":
        assert isinstance(size, int)
        return Packed(size, symmetric=symmetric)
    return FP8("compressed-tensors float-quantized", size if isinstance(size, tuple) else None)


def _compressed_weights(group: Any, default: Any) -> tuple[str, int | tuple[int, int] | None, bool]:
    """How a group of modules is quantised: the format; the block's size or the group's; whether zero points
    are 0. Raises Refused."""
    form, weights = _of(group, "format", None) or default, _of(group, "weights", None)
    if not isinstance(weights, dict):
        raise Refused(f"weights is {shown(weights, 80)}")
    bits, kind, strategy = weights.get("num_bits"), weights.get("type"), weights.get("strategy")
    symmetric, size = weights.get("symmetric", True) is True, weights.get("group_size")
    if form in ("float-quantized", "naive-quantized") and (bits, kind, symmetric) == (8, "float", True):
        if strategy in ("tensor", "channel"):
            return "float-quantized", None, True
        if strategy == "block":
            return "float-quantized", _block(weights.get("block_structure")), True
    if form == "pack-quantized" and (bits, kind) == (4, "int"):
        if strategy == "channel":
            return "pack-quantized", -1, symmetric
        if strategy in ("group", None):
            return "pack-quantized", _group_size(size), symmetric
    raise Refused(f"format {form!r:.40} with weights of {bits!r:.40} bits, {kind!r:.40}, {strategy!r:.40}")


def _fp8(config: dict[str, Any]) -> Format:
    if (fmt := config.get("fmt", "e4m3")) not in ("e4m3", "float8_e4m3fn"):
        raise Refused(f"fmt is {fmt!r:.40}")
    blocks = config.get("weight_block_size")
    if blocks is None:
        return FP8("fp8", _block(DEFAULT_BLOCK))
    return FP8("fp8", _block(blocks), "weight_scale_inv")


def _awq(config: dict[str, Any]) -> Format:
    bits = config.get("bits", config.get("w_bit"))
    if bits != 4:
        raise Refused(f"bits is {bits!r:.40}")
    if str(version := config.get("version", "gemm")).lower() != "gemm":
        raise Refused(f"version is {version!r:.40}")
    if config.get("zero_point", True) is not True or config.get("backend", "autoawq") != "autoawq":
        raise Refused(
            f"zero_point is {config.get('zero_point')!r:.40}, backend {config.get('backend')!r:.40}"
        )
    return AWQ(_group_size(config.get("group_size", config.get("q_group_size", 128))))


def _gptq(config: dict[str, Any]) -> Format:
    if (bits := config.get("bits")) != 4:
        raise Refused(f"bits is {bits!r:.40}")
    form = config.get("checkpoint_format") or "gptq"
    if form not in ("gptq", "gptq_v2") or config.get("is_marlin_format"):
        raise Refused(f"checkpoint_format is {'marlin' if config.get('is_marlin_format') else form!r:.40}")
    if (packed := config.get("pack_dtype", "int32")) != "int32":
        raise Refused(f"pack_dtype is {packed!r:.40}")
    size, desc_act = _group_size(config.get("group_size", 128)), config.get("desc_act") is True
    return GPTQ(size, desc_act=desc_act, is_v2=form == "gptq_v2")


_METHODS: dict[str, Callable[[dict[str, Any]], Format]] = {
    "compressed-tensors": _compressed_tensors,
    "fbgemm_fp8": lambda _: FP8("fbgemm_fp8"),
    "fp8": _fp8,
    "awq": _awq,
    "gptq": _gptq,
}


def _of(tree: Any, key: str, default: Any) -> Any:
    return tree.get(key, default) if isinstance(tree, dict) else default


def _group_size(value: Any) -> int:
    if type(value) is not int or not (value > 0 or value == -1):
        raise Refused(f"group_size is {value!r:.40}")
    return value


def _block(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or any(type(n) is not int or n < 1 for n in value):
        raise Refused(f"blocks of {value!r:.40}")
    return (value[0], value[1])
