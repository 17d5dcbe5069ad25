"""FP8 weights (e4m3) with their scales: one a tensor, one a row, or one a block of rows and columns.

compressed-tensors (https://github.com/vllm-project/compressed-tensors, "float-quantized"), fbgemm_fp8 and fp8
(transformers' `FineGrainedFP8Config`, and vLLM's) differ by the name of the scales. Whatever the name,
`weight_scale_inv` included, a weight is its number times its scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from flexray.models.formats.format import Format, Header, Part, Read, Region, StoredWeight

if TYPE_CHECKING:  # it takes seconds to import
    from torch import Tensor

SCALES = ("weight_scale", "weight_scale_inv")
SCALE_DTYPES = ("F32", "BF16", "F16", "F8_E8M0")


class FP8(Format):
    """`weight` [out, in] in float8_e4m3fn, and its scales.

    Args:
        name: for messages.
        block: rows and columns that have a scale in common, if the checkpoint names them.
        scale: what scales are called if a module has none.
    """

    def __init__(self, name: str, block: tuple[int, int] | None = None, scale: str = "weight_scale"):
        self.name = name
        self._block = block
        self._scale = scale

    def shape(self, tensors: Mapping[str, Header]) -> tuple[int, int] | None:
        weight = tensors.get("weight")
        if weight is None or weight.dtype != "F8_E4M3" or len(weight.shape) != 2:
            return None
        return (weight.shape[0], weight.shape[1])

    def parts(self, shape: tuple[int, int], tensors: Iterable[str]) -> dict[str, Part]:
        rows, columns = shape
        shapes: list[tuple[int, ...]] = [(rows, 1), (rows,), (1,), (), (1, 1)]
        if self._block is not None:
            shapes.insert(0, (-(-rows // self._block[0]), -(-columns // self._block[1])))
        scale = next((name for name in SCALES if name in set(tensors)), self._scale)
        return {"weight": Part(("F8_E4M3",), (shape,)), scale: Part(SCALE_DTYPES, tuple(shapes))}

    def dequantize(self, weight: StoredWeight, read: Read, region: Region) -> Tensor:
        import torch

        scale = read(next(name for name in SCALES if name in weight.tensors)).float()
        if scale.ndim < 2:
            scale = scale.reshape(-1, 1)
        for dim, (size, count) in enumerate(zip(weight.shape, scale.shape, strict=True)):
            if count == 1:  # one for all
                continue
            block = 1 if self._block is None or count == size else self._block[dim]
            places = torch.arange(size, device=scale.device)[region[dim]] // block
            scale = scale.index_select(dim, places)
        return read("weight", region).float().mul_(scale)
