"""Weights of 4 bits, eight in an int32, with a scale and a zero point for each group of inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from flexray.models.formats.format import Format, Header, Part, Read, Region, StoredWeight

if TYPE_CHECKING:  # it takes seconds to import
    from torch import Tensor

PACKED = 8
"""Numbers in an int32."""
SCALE_DTYPES = ("F16", "BF16", "F32")
IN_ORDER = (0, 1, 2, 3, 4, 5, 6, 7)


def unpack(packed: Tensor, dim: int, order: Sequence[int] = IN_ORDER) -> Tensor:
    """Numbers from 0 to 15, int32, eight times as many along `dim`.

    Args:
        order: of the eight numbers of an int32, which of its four bits each is in, from the lowest up.
    """
    import torch

    shifts = torch.tensor([4 * place for place in order], dtype=torch.int32, device=packed.device)
    numbers = packed.unsqueeze(dim + 1) >> (shifts[:, None] if dim == 0 else shifts)
    return numbers.bitwise_and_(15).flatten(dim, dim + 1)


def around(places: slice) -> tuple[slice, slice]:
    """The int32s that hold some numbers of a packed dimension, and the numbers' places among theirs.

    >>> around(slice(6, 17))
    (slice(0, 3, None), slice(6, 17, None))
    >>> around(slice(16, 20))
    (slice(2, 3, None), slice(0, 4, None))
    """
    first = places.start // PACKED
    before = first * PACKED
    return slice(first, -(-places.stop // PACKED)), slice(places.start - before, places.stop - before)


def groups(size: int, group_size: int) -> int:
    """The groups of a weight's inputs; -1 is one group of all."""
    return 1 if group_size == -1 else -(-size // group_size)


class AWQ(Format):
    """AutoAWQ's version "gemm" (`awq/modules/linear/gemm.py` of https://github.com/casper-hansen/AutoAWQ):
    `qweight` [in, out / 8], `qzeros` [groups, out / 8], `scales` [groups, out]; (number - zero) * scale."""

    ORDER = (0, 4, 1, 5, 2, 6, 3, 7)

    def __init__(self, group_size: int):
        self.name = "awq"
        self._group_size = group_size

    def shape(self, tensors: Mapping[str, Header]) -> tuple[int, int] | None:
        packed = tensors.get("qweight")
        if packed is None or len(packed.shape) != 2:
            return None
        return (packed.shape[1] * PACKED, packed.shape[0])

    def parts(self, shape: tuple[int, int], tensors: Iterable[str]) -> dict[str, Part]:
        rows, columns = shape
        count = groups(columns, self._group_size)
        return {
            "qweight": Part(("I32",), ((columns, rows // PACKED),)),
            "qzeros": Part(("I32",), ((count, rows // PACKED),)),
            "scales": Part(SCALE_DTYPES, ((count, rows),)),
        }

    def dequantize(self, weight: StoredWeight, read: Read, region: Region) -> Tensor:
        rows, columns = region
        packed, own = around(rows)
        all_groups = slice(0, weight.tensors["scales"].shape[0])
        numbers = unpack(read("qweight", (columns, packed)), 1, self.ORDER)[:, own]
        zeros = unpack(read("qzeros", (all_groups, packed)), 1, self.ORDER)[:, own]
        scales = read("scales", (all_groups, rows)).float()
        group = group_of_inputs(weight, read, "", len(scales), self._group_size)[columns]
        return ((numbers - zeros[group]) * scales[group]).t()


class GPTQ(Format):
    """AutoGPTQ's and GPTQModel's (`nn_modules/qlinear` of https://github.com/ModelCloud/GPTQModel): `qweight`
    [in / 8, out], `qzeros` [groups, out / 8], `scales` [groups, out], and `g_idx` [in], the group of each
    input; (number - zero) * scale.

    Args:
        desc_act: the inputs were taken in another order, so that `g_idx` has to be there.
        is_v2: zero points are stored as they are. In version 1 each is one less, as an int32 of eight is
            0x11111111 less: a zero point of 0 borrows from the next, as GPTQModel writes it.
    """

    def __init__(self, group_size: int, *, desc_act: bool, is_v2: bool):
        self.name = "gptq"
        self._group_size, self._desc_act, self._is_v2 = group_size, desc_act, is_v2

    def shape(self, tensors: Mapping[str, Header]) -> tuple[int, int] | None:
        packed = tensors.get("qweight")
        if packed is None or len(packed.shape) != 2:
            return None
        return (packed.shape[1], packed.shape[0] * PACKED)

    def parts(self, shape: tuple[int, int], tensors: Iterable[str]) -> dict[str, Part]:
        rows, columns = shape
        count = groups(columns, self._group_size)
        found = {
            "qweight": Part(("I32",), ((columns // PACKED, rows),)),
            "qzeros": Part(("I32",), ((count, rows // PACKED),)),
            "scales": Part(SCALE_DTYPES, ((count, rows),)),
        }
        if self._desc_act or "g_idx" in set(tensors):
            found["g_idx"] = Part(("I32",), ((columns,),))
        return found

    def dequantize(self, weight: StoredWeight, read: Read, region: Region) -> Tensor:
        rows, columns = region
        (packed_rows, own_rows), (packed_columns, own_columns) = around(rows), around(columns)
        all_groups = slice(0, weight.tensors["scales"].shape[0])
        numbers = unpack(read("qweight", (packed_columns, rows)), 0)[own_columns]
        zeros = read("qzeros", (all_groups, packed_rows))
        zeros = unpack(zeros if self._is_v2 else zeros + 0x11111111, 1)[:, own_rows]
        scales = read("scales", (all_groups, rows)).float()
        group = group_of_inputs(weight, read, "g_idx", len(scales), self._group_size)[columns]
        return ((numbers - zeros[group]) * scales[group]).t()


class Packed(Format):
    """compressed-tensors' "pack-quantized" (`compressors/pack_quantized`): `weight_packed` [out, in / 8],
    `weight_scale` [out, groups], and where zero points are not 0, `weight_zero_point` [out / 8, groups].
    Numbers and zero points are -8 to 7, stored as 0 to 15; `weight_g_idx` is the group of each input."""

    def __init__(self, group_size: int, *, symmetric: bool):
        self.name = "compressed-tensors pack-quantized"
        self._group_size, self._symmetric = group_size, symmetric

    def shape(self, tensors: Mapping[str, Header]) -> tuple[int, int] | None:
        packed = tensors.get("weight_packed")
        if packed is None or len(packed.shape) != 2:
            return None
        return (packed.shape[0], packed.shape[1] * PACKED)

    def parts(self, shape: tuple[int, int], tensors: Iterable[str]) -> dict[str, Part]:
        rows, columns = shape
        count = groups(columns, self._group_size)
        found = {
            "weight_packed": Part(("I32",), ((rows, columns // PACKED),)),
            "weight_scale": Part(SCALE_DTYPES, ((rows, count),)),
            "weight_shape": Part(("I64", "I32"), ((2,),)),
        }
        if not self._symmetric:
            found["weight_zero_point"] = Part(("I32",), ((-(-rows // PACKED), count),))
        if "weight_g_idx" in set(tensors):
            found["weight_g_idx"] = Part(("I32", "I64"), ((columns,),))
        return found

    def dequantize(self, weight: StoredWeight, read: Read, region: Region) -> Tensor:
        rows, columns = region
        (packed_rows, own_rows), (packed_columns, own_columns) = around(rows), around(columns)
        all_groups = slice(0, weight.tensors["weight_scale"].shape[1])
        numbers = unpack(read("weight_packed", (rows, packed_columns)), 1)[:, own_columns]
        scales = read("weight_scale", (rows, all_groups)).float()
        group = group_of_inputs(weight, read, "weight_g_idx", scales.shape[1], self._group_size)[columns]
        if self._symmetric:
            return (numbers - 8) * scales[:, group]
        zeros = unpack(read("weight_zero_point", (packed_rows, all_groups)), 0)[own_rows]
        return (numbers - zeros[:, group]) * scales[:, group]


def group_of_inputs(weight: StoredWeight, read: Read, part: str, count: int, group_size: int) -> Tensor:
    """The group of each input, int64 [in]: as the files say in `part`, else one after the other.

    Args:
        count: of groups.

    Raises:
        ValueError: the files name a group that is not there.
    """
    import torch

    if part not in weight.tensors:
        device = read("scales" if "scales" in weight.tensors else "weight_scale").device
        return torch.arange(weight.shape[1], device=device) // (weight.shape[1] if count == 1 else group_size)
    found = read(part).long()
    if found.min() < 0 or found.max() >= count:
        raise ValueError(f"{part} names groups from {found.min()} to {found.max()}, and there are {count}")
    return found
