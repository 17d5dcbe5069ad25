"""Writes checkpoints as they are published quantised, plainly, with the weights that they stand for.

The libraries that write such files are no dependencies of the tests. What is written here was compared by
hand, bit for bit, with what they write and make of it: compressed-tensors 0.20.0 (its compressors,
float-quantized and pack-quantized), transformers 5.24.0 (`Fp8Quantize`, `Fp8Dequantize`), AutoAWQ 0.2.9
(`WQLinear_GEMM`, `dequantize_gemm`) and AutoGPTQ 0.7.1 (`QuantLinear.pack` and its dequantising), which loses
zero points of 0: those are as in GPTQModel's source, which takes 0x11111111 from eight at once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]
Writer = Callable[[Tensor], tuple[Tensors, Tensor]]
"""From a weight, float32 [out, in], to the tensors that stand for it and what they stand for, float32."""
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
LEFT_OUT = "model.layers.0.mlp.down_proj"
"""A linear layer that is not quantised, beside the head."""


@dataclass(frozen=True)
class Published:
    """A way in which checkpoints are published."""

    config: dict[str, Any]
    write: Writer


def pack(numbers: Tensor, order: tuple[int, ...] = tuple(range(8))) -> Tensor:
    """Numbers from 0 to 15, [N, 8 M], as int32 [N, M].

    Args:
        order: which number is in which four bits, the lowest first.
    """
    words = numbers.unflatten(1, (-1, 8))
    return as_int32(sum(words[..., number] << (4 * place) for place, number in enumerate(order)))


def as_int32(words: Any) -> Tensor:
    """Of int64 modulo 2**32."""
    words = words % 2**32
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def fp8(
    rows: int | None,
    columns: int | None,
    name: str = "weight_scale",
    shape: Any = None,
    dtype: torch.dtype = torch.float32,
) -> Writer:
    """One scale for `rows` rows and `columns` columns; None: for all of them."""

    def write(weight: Tensor) -> tuple[Tensors, Tensor]:
        height, width = rows or len(weight), columns or weight.shape[1]
        scale = torch.stack(
            [
                torch.stack([tile.abs().max() / 448 for tile in strip.split(width, 1)])
                for strip in weight.split(height)
            ]
        )
        if dtype == torch.float8_e8m0fnu:  # which has powers of two only
            scale = scale.log2().ceil().exp2()
        whole = scale.repeat_interleave(height, 0).repeat_interleave(width, 1)
        whole = whole[: len(weight), : weight.shape[1]]
        stored = (weight / whole).clamp(-448, 448).to(torch.float8_e4m3fn)
        scale = (scale if shape is None else scale.reshape(shape)).to(dtype)
        tensors = {"weight": stored, name: scale}
        return tensors, stored.float() * whole

    return write


def with_unused(write: Writer) -> Writer:
    """With the scale of a static activation beside it."""
    return lambda weight: (write(weight)[0] | {"input_scale": torch.tensor(0.03)}, write(weight)[1])


def quantise(weight: Tensor, size: int, *, symmetric: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Numbers from 0 to 15, [out, in]; zero points, [out, groups]; scales, float16 [out, groups]; and what
    they stand for."""
    tiles = weight.unflatten(1, (-1, size))
    low, high = tiles.amin(-1).clamp(max=0), tiles.amax(-1).clamp(min=0)
    scales = (torch.maximum(-low, high) / 7 if symmetric else (high - low) / 15).half()
    zeros = torch.full_like(low, 8) if symmetric else (-low / scales).round()
    zeros = zeros.clamp(0, 15).long()
    zeros[:2] = zeros[:2] if symmetric else torch.tensor([[0], [15]])  # which are stored in another way
    numbers = (tiles / scales[..., None] + zeros[..., None]).round().clamp(0, 15).long()
    stands_for = (numbers - zeros[..., None]).float() * scales[..., None].float()
    return numbers.flatten(1), zeros, scales, stands_for.flatten(1)


def awq(size: int) -> Writer:
    def write(weight: Tensor) -> tuple[Tensors, Tensor]:
        numbers, zeros, scales, stands_for = quantise(weight, size, symmetric=False)
        tensors = {
            "qweight": pack(numbers.t(), AWQ_ORDER),
            "qzeros": pack(zeros.t(), AWQ_ORDER),
            "scales": scales.t(),
        }
        return tensors, stands_for

    return write


def gptq(size: int, *, version: int, symmetric: bool = False, desc_act: bool = False) -> Writer:
    def write(weight: Tensor) -> tuple[Tensors, Tensor]:
        order = torch.arange(weight.shape[1])
        if desc_act:
            order = torch.randperm(len(order), generator=torch.Generator().manual_seed(0))
        back = order.argsort()
        numbers, zeros, scales, stands_for = quantise(
            weight[:, order], weight.shape[1] if size == -1 else size, symmetric=symmetric
        )
        packed_zeros = pack(zeros.t())
        if version == 1:
            packed_zeros = as_int32(packed_zeros.long() - 0x11111111)
        per_group = weight.shape[1] // scales.shape[1]
        tensors = {
            "qweight": pack(numbers[:, back]).t(),
            "qzeros": packed_zeros,
            "scales": scales.t(),
            "g_idx": (back // per_group).int(),
        }
        return tensors, stands_for[:, back]

    return write


def packed(size: int, *, symmetric: bool) -> Writer:
    def write(weight: Tensor) -> tuple[Tensors, Tensor]:
        per_group = weight.shape[1] if size == -1 else size
        numbers, zeros, scales, stands_for = quantise(weight, per_group, symmetric=symmetric)
        tensors = {
            "weight_packed": pack(numbers),
            "weight_scale": scales,
            "weight_shape": torch.tensor(weight.shape),
        }
        if not symmetric:
            tensors["weight_zero_point"] = pack(zeros.t()).t()
        return tensors, stands_for

    return write


def compressed(form: str, **weights: Any) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"symmetric": True} | weights}},
        "ignore": ["lm_head", LEFT_OUT],
        "kv_cache_scheme": None,
    }


E4M3 = {"num_bits": 8, "type": "float"}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 16}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": False, "sym": False}
PUBLISHED = {
    "compressed-tensors, a tensor": Published(
        compressed("float-quantized", **E4M3, strategy="tensor"), with_unused(fp8(None, None, shape=[1]))
    ),
    "compressed-tensors, a channel": Published(
        compressed("float-quantized", **E4M3, strategy="channel"), fp8(1, None)
    ),
    "compressed-tensors, a block": Published(
        compressed("float-quantized", **E4M3, strategy="block", block_structure=[40, 24]), fp8(40, 24)
    ),
    "fbgemm_fp8": Published(
        {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": [LEFT_OUT]},
        fp8(1, None),
    ),
    "fp8, a block": Published(
        {"quant_method": "fp8", "weight_block_size": [40, 24], "activation_scheme": "dynamic"},
        fp8(40, 24, "weight_scale_inv"),
    ),
    "fp8, powers of two": Published(
        {"quant_method": "fp8", "weight_block_size": [32, 32], "scale_fmt": "ue8m0"},
        fp8(32, 32, "weight_scale_inv", dtype=torch.float8_e8m0fnu),
    ),
    "fp8, a tensor": Published(
        {"quant_method": "fp8", "activation_scheme": "static"}, with_unused(fp8(None, None, shape=[]))
    ),
    "awq": Published(
        {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "gemm"}, awq(16)
    ),
    "gptq": Published(GPTQ, gptq(16, version=1)),
    "gptq, one group": Published(GPTQ | {"group_size": -1, "sym": True}, gptq(-1, version=1, symmetric=True)),
    "gptq, desc_act": Published(GPTQ | {"desc_act": True}, gptq(16, version=1, desc_act=True)),
    "gptq_v2": Published(GPTQ | {"checkpoint_format": "gptq_v2"}, gptq(16, version=2)),
    "pack-quantized": Published(compressed("pack-quantized", **INT4), packed(16, symmetric=True)),
    "pack-quantized with zero points": Published(
        compressed("pack-quantized", **INT4 | {"symmetric": False}), packed(16, symmetric=False)
    ),
    "pack-quantized, a channel": Published(
        compressed("pack-quantized", **INT4 | {"strategy": "channel", "group_size": None}),
        packed(-1, symmetric=True),
    ),
}


def write_quantised(plain: Path, folder: Path, kind: str) -> tuple[Path, Path]:
    """Write a checkpoint in one of the PUBLISHED ways, and the same weights dequantised, float32.

    Args:
        plain: the folder of a checkpoint that is not quantised, in one file.
    """
    published = PUBLISHED[kind]
    stored, stands_for = {}, {}
    for name, weight in load_file(plain / "model.safetensors").items():
        module, _, part = name.rpartition(".")
        if "_proj" not in module or part != "weight" or module == LEFT_OUT:
            stored[name], stands_for[name] = weight, weight.float()
            continue
        tensors, stands_for[name] = published.write(weight.float())
        stored |= {f"{module}.{end}": tensor for end, tensor in tensors.items()}
    found = (folder / "quantised", folder / "dequantised")
    for place, weights in zip(found, (stored, stands_for), strict=True):
        shutil.copytree(plain, place)
        weights = {name: tensor.contiguous() for name, tensor in weights.items()}
        save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    edit_config(found[0], quantization_config=published.config)
    return found


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
