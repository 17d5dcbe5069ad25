"""What a format of quantised weights is: which tensors of the files hold a weight, and what it is then."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from flexray.errors import ModelError, first_few

if TYPE_CHECKING:  # it takes seconds to import
    from torch import Tensor

Region = tuple[slice, ...]
"""A slice for each dimension of a weight."""
FLOATS = ("BF16", "F16", "F32", "F64")
"""Dtypes of weights that are not quantised, by safetensors' names."""
UNUSED = (
    *("input_scale", "input_scale_ub", "input_zero_point", "output_scale", "output_zero_point"),
    *("activation_scale", "q_scale", "k_scale", "v_scale", "kv_scale"),
)
"""Tensors for quantised activations and caches, by the end of their names. They are passed over."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of one of its tensors."""

    file: str
    shape: tuple[int, ...]
    dtype: str
    """By safetensors' name."""


class Part(NamedTuple):
    """What one of a weight's tensors has to be."""

    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    """Any of them."""


class Read(Protocol):
    """Reads a weight's tensor by the end of its name, or a region of it."""

    def __call__(self, part: str, region: Region | None = None) -> Tensor: ...


class Format(ABC):
    """How a checkpoint's linear layers are quantised. Weights are [out, in]."""

    name: str
    """For messages."""

    @abstractmethod
    def shape(self, tensors: Mapping[str, Header]) -> tuple[int, int] | None:
        """The shape of the weight that a module's tensors hold, by the end of their names; None: it is not
        quantised, as that of modules which the checkpoint's configuration leaves out."""

    @abstractmethod
    def parts(self, shape: tuple[int, int], tensors: Iterable[str]) -> dict[str, Part]:
        """What has to be in the files for a weight of a shape, by the end of the tensors' names.

        Args:
            tensors: those of the module, for what may be there or not.
        """

    @abstractmethod
    def dequantize(self, weight: StoredWeight, read: Read, region: Region) -> Tensor:
        """A region of a weight, in float32.

        Raises:
            ValueError: the numbers of a tensor cannot be.
        """


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """One of the model's weights, and the tensors of the files that hold it."""

    module: str
    shape: tuple[int, ...]
    tensors: Mapping[str, Header]
    """By the end of their names. The first is the largest."""
    format: Format | None
    """None: one tensor, not quantised."""

    @property
    def header(self) -> Header:
        """Of the first tensor."""
        return next(iter(self.tensors.values()))

    def tensor_name(self, part: str) -> str:
        """The whole name of a tensor."""
        return f"{self.module}.{part}" if self.module else part


def stored_weights(headers: Mapping[str, Header], form: Format | None) -> dict[str, StoredWeight]:
    """A checkpoint's weights by their names in the model. Tensors of the files that belong to no quantised
    weight are weights of their own, except UNUSED ones of a quantised checkpoint."""
    modules: dict[str, dict[str, Header]] = {}
    for name, header in headers.items():
        module, _, part = name.rpartition(".")
        modules.setdefault(module, {})[part] = header
    found: dict[str, StoredWeight] = {}
    for module, tensors in modules.items():
        shape = form.shape(tensors) if form is not None else None
        if form is not None and shape is not None:
            own = {part: tensors[part] for part in form.parts(shape, tensors) if part in tensors}
            weight = StoredWeight(module, shape, own, form)
            found[weight.tensor_name("weight")] = weight
            tensors = {part: header for part, header in tensors.items() if part not in own}
        for part, header in tensors.items():
            if form is None or part not in UNUSED:
                weight = StoredWeight(module, header.shape, {part: header}, None)
                found[weight.tensor_name(part)] = weight
    return found


def extra_biases(weights: Mapping[str, StoredWeight], expected: Iterable[str]) -> list[str]:
    """Biases of quantised layers that the model does not have: AutoGPTQ writes zeros for those.

    Args:
        expected: the names of the model's weights.
    """
    found = set(weights).difference(expected)
    biases = (name for name in found if name.endswith(".bias"))
    quantised = {weight.module for weight in weights.values() if weight.format is not None}
    return sorted(name for name in biases if name.removesuffix(".bias") in quantised)


def check_parts(
    weights: Mapping[str, StoredWeight], shapes: Mapping[str, tuple[int, ...]], folder: Path
) -> None:
    """Check that the tensors of quantised weights are there, of the right shapes and dtypes.

    Args:
        shapes: those that the weights have to have.

    Raises:
        ModelError: they are not.
    """
    missing, unfit = [], []
    for name, weight in weights.items():
        shape = shapes.get(name)
        if weight.format is None or shape is None:
            continue
        for part, wanted in weight.format.parts((shape[0], shape[-1]), weight.tensors).items():
            found = weight.tensors.get(part)
            if found is None:
                missing.append(weight.tensor_name(part))
            elif found.shape not in wanted.shapes or found.dtype not in wanted.dtypes:
                unfit.append(
                    f"{found.file}: {weight.tensor_name(part)} is {list(found.shape)} {found.dtype}, not "
                    f"{' or '.join(str(list(one)) for one in wanted.shapes)} {'/'.join(wanted.dtypes)}"
                )
    kinds = {weight.format.name for weight in weights.values() if weight.format is not None}
    if missing:
        raise ModelError(
            f"{folder}: {len(missing)} tensor(s) of weights quantised by {', '.join(kinds)} are missing from "
            f"the files: {first_few(sorted(missing))}. Copy the checkpoint again."
        )
    if unfit:
        raise ModelError(
            f"{folder}: {len(unfit)} tensor(s) of weights quantised by {', '.join(kinds)} do not fit "
            f"config.json: {first_few(sorted(unfit))}. Copy config.json and weights from the same checkpoint."
        )
