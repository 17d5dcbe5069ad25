"""From a checkpoint's files to a model on its device, one weight at a time.

The model is made without memory; each weight gets its memory on the device, in the dtype of the model, and is
filled from the files by a few threads. So the host holds one weight a thread, never the checkpoint. Quantised
weights are dequantised on the device, in float32, some rows at a time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors import safe_open
from torch import Tensor, nn

from flexray.errors import ModelError
from flexray.models.compat import dtype_argument
from flexray.models.families import COPY, FAMILIES
from flexray.models.formats import Region, StoredWeight, extra_biases
from flexray.models.tensor_parallel import ADDED_ONCE, local_config, rank_region
from flexray.models.weights import HEAD, read_weights

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM

THREADS = 4
"""Weights that are read at once: enough to keep a disk busy, and few to hold."""
STRIP = 2**22
"""Numbers of a quantised weight that a thread dequantises at once, about. A number of 4 bits takes 20 bytes
meanwhile, so that is some 80 MiB."""


class WeightReader:
    """A checkpoint's weights by name, whole or a part; its files are open until it is closed.

    Threads may read at once. What is not quantised is a view of a file that is mapped into memory: the
    operating system drops its pages when memory is short.

    Args:
        device: where quantised weights are dequantised.
    """

    def __init__(self, folder: Path, weights: Mapping[str, StoredWeight], device: torch.device | str = "cpu"):
        self._folder, self._weights, self._device = folder, weights, device
        self._opened = ExitStack()
        files = {header.file for weight in weights.values() for header in weight.tensors.values()}
        self._files: dict[str, Any] = {
            file: self._opened.enter_context(safe_open(folder / file, framework="pt"))
            for file in sorted(files)
        }

    def __enter__(self) -> WeightReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole weight."""
        return self._weights[name].shape

    def is_quantised(self, name: str) -> bool:
        """Whether `read` dequantises the weight."""
        return self._weights[name].format is not None

    def read(self, name: str, region: Region | None = None) -> Tensor:
        """A weight or a part of it, to be copied, not changed: in the dtype of the file and on the CPU; if it
        is quantised, in float32 and on the device.

        Args:
            region: a slice for each of the weight's dimensions; None: all of it.

        Raises:
            ModelError: the numbers of a quantised weight cannot be.
        """
        weight = self._weights[name]
        if weight.format is None:
            (part,) = weight.tensors
            return self._read(weight, part, region)

        def read(part: str, region: Region | None = None) -> Tensor:
            return self._read(weight, part, region).to(self._device)

        whole = tuple(slice(0, size) for size in weight.shape)
        try:
            return weight.format.dequantize(weight, read, region or whole)
        except ValueError as e:
            file = self._folder / weight.header.file
            raise ModelError(f"{file}: {weight.module}: {e}. Copy the checkpoint again.") from e

    def _read(self, weight: StoredWeight, part: str, region: Region | None) -> Tensor:
        file, name = self._files[weight.tensors[part].file], weight.tensor_name(part)
        tensor: Tensor = file.get_tensor(name) if region is None else file.get_slice(name)[region]
        return tensor


def resolve_device(device: str | torch.device) -> torch.device:
    """The device that `model.device` stands for. Raises ModelError: it is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    resolved = torch.device(device)
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ModelError("device is cuda, but torch finds no CUDA device. Use auto or cpu, or a CUDA torch.")
    return resolved


def load_weights(
    folder: Path,
    config: LlamaConfig,
    *,
    dtype: torch.dtype,
    device: torch.device,
    attn_implementation: str,
    rank: int = 0,
    ranks: int = 1,
) -> LlamaForCausalLM:
    """The model of a checkpoint, in eval mode: what transformers' `from_pretrained` gives, or a rank's part.

    Args:
        folder: passes `check_checkpoint`, which returned `config`.
        rank, ranks: which of how many parts; see `flexray.models.tensor_parallel`.

    Raises:
        ConfigError: the model cannot be split over so many ranks.
        ModelError: the numbers of a quantised weight cannot be.
    """
    assert 0 <= rank < ranks
    model = _without_memory(local_config(config, ranks) if ranks > 1 else config, dtype, attn_implementation)
    is_tied = model.config.tie_word_embeddings
    names = [name for name, _ in model.named_parameters() if not (is_tied and name == HEAD)]
    weights = {name: _allocate(model, name, dtype, device) for name in names}
    if is_tied:
        model.lm_head.weight = model.model.embed_tokens.weight
    # not of the files: computed, in float32, as the model's own class does
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config).to(device)
    stored = read_weights(folder)
    order = [name for name in stored if name in weights]  # as in the files
    with WeightReader(folder, stored, device) as reader, ThreadPoolExecutor(THREADS) as threads:
        tasks = [threads.submit(fill, weights[name], reader, name, rank) for name in order]
        try:
            for task in tasks:
                task.result()
        finally:
            threads.shutdown(cancel_futures=True)
        for name in extra_biases(stored, {HEAD, *weights}):
            if reader.read(name).any():
                file = folder / stored[name].header.file
                raise ModelError(
                    f"{file}: {name} is not zero, and config.json's model has no such bias. {COPY}"
                )
    assert len(order) == len(weights)
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    model.eval()
    return model


def fill(weight: Tensor, reader: WeightReader, name: str, rank: int) -> None:
    """Copy a weight out of the files, or the rank's part of it. Of a quantised one no more than a strip of
    rows is dequantised at once."""
    rows, *columns = rank_region(reader.shape(name), weight.shape, rank)
    size = len(weight)
    if reader.is_quantised(name):
        size = max(1, STRIP // weight[0].numel())
    for start in range(0, len(weight), size):
        strip = weight[start : start + size]
        first = rows.start + start
        part = reader.read(name, (slice(first, first + len(strip)), *columns))
        copy_part(strip, part, name, rank)


def copy_part(weight: Tensor, part: Tensor, name: str, rank: int) -> None:
    """Copy numbers into the weight of a rank's model, but for those that another rank adds."""
    assert weight.shape == part.shape
    with torch.no_grad():
        if rank > 0 and name.endswith(ADDED_ONCE):
            weight.zero_()
        else:
            weight.copy_(part)


def check_finite(model: LlamaForCausalLM, folder: Path) -> None:
    """Check the numbers of a loaded model: one pass on its device, and one look at the outcome.

    Raises:
        ModelError: NaN or infinity in a weight, in the file or since it was cast to the model's dtype.
    """
    names, weights = zip(*model.named_parameters(), strict=True)
    # A minimum passes on NaN, and unlike isfinite() makes no copy of the weight.
    ends = torch.stack([torch.stack(torch.aminmax(weight.detach())) for weight in weights])
    bad = (~ends.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if not bad:
        zeros = (ends == 0).all(dim=1).nonzero().flatten().tolist()
        _check_not_zero([names[i] for i in zeros], folder)
        return
    name, weight = names[bad[0]], weights[bad[0]].detach()
    count = int((~weight.isfinite()).sum())
    what = f"{name} has {count} of {weight.numel()} values that are not finite (NaN or infinity)"
    what += f", and {len(bad) - 1} other weight(s) have some" if len(bad) > 1 else ""
    stored = read_weights(folder)
    file = folder / stored[name].header.file
    with WeightReader(folder, {name: stored[name]}) as reader:
        is_finite = bool(reader.read(name).isfinite().all())
    if is_finite:
        dtype = str(weight.dtype).removeprefix("torch.")
        other = "bfloat16" if dtype == "float16" else "float32"
        raise ModelError(
            f"{file}: in {dtype}, {what}. In the file they are finite, but too large for "
            f"{dtype} (at most {torch.finfo(weight.dtype).max:g}). Set model.dtype: {other}."
        )
    raise ModelError(
        f"{file}: {what}. No answer could be computed. Copy the checkpoint again; if it was "
        "merged or trained here, that went wrong."
    )


def _check_not_zero(zeros: Sequence[str], folder: Path) -> None:
    """Some models have layers that add nothing, but none is without embeddings, norms or head."""
    if needed := [name for name in zeros if re.search(r"(embed_tokens|norm|lm_head)\.weight$", name)]:
        file = folder / read_weights(folder)[needed[0]].header.file
        raise ModelError(
            f"{file}: {needed[0]} holds nothing but zeros"
            + (f", and so do {len(needed) - 1} other weight(s)" if len(needed) > 1 else "")
            + ". No answer could be computed. Copy the checkpoint again."
        )


def _without_memory(config: LlamaConfig, dtype: torch.dtype, attn_implementation: str) -> LlamaForCausalLM:
    kind = getattr(transformers, f"{FAMILIES[config.model_type]}ForCausalLM")
    with torch.device("meta"):
        model: LlamaForCausalLM = kind._from_config(
            config, **dtype_argument(dtype), attn_implementation=attn_implementation
        )
    return model


def _allocate(model: nn.Module, name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Give a parameter memory, with nothing in it yet."""
    module, _, leaf = name.rpartition(".")
    shape = model.get_parameter(name).shape
    weight = nn.Parameter(torch.empty(shape, dtype=dtype, device=device))
    setattr(model.get_submodule(module), leaf, weight)
    return weight
