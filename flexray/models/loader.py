"""From a checkpoint's files to a model on its device, one weight at a time.

The model is made without memory; each weight gets its memory on the device, in the dtype of the model, and is
filled from the files by a few threads. So the host holds one weight a thread, never the checkpoint.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors import safe_open
from torch import Tensor, nn

from flexray.models.compat import dtype_argument
from flexray.models.families import FAMILIES
from flexray.models.tensor_parallel import ADDED_ONCE, local_config, rank_region
from flexray.models.weights import Header, read_headers

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM

THREADS = 4
"""Weights that are read at once: enough to keep a disk busy, and few to hold."""
Region = tuple[slice, ...]


class WeightReader:
    """A checkpoint's weights by name, whole or a part; its files are open until it is closed.

    Threads may read at once. What is read is a view of a file that is mapped into memory: the operating
    system drops its pages when memory is short.
    """

    def __init__(self, folder: Path, headers: dict[str, Header]):
        self._headers = headers
        self._opened = ExitStack()
        files = sorted({header.file for header in headers.values()})
        self._files: dict[str, Any] = {
            file: self._opened.enter_context(safe_open(folder / file, framework="pt")) for file in files
        }

    def __enter__(self) -> WeightReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole weight."""
        return self._headers[name].shape

    def read(self, name: str, region: Region) -> Tensor:
        """A weight or a part of it, on the CPU in the dtype of the file; to be copied, not changed.

        Args:
            region: a slice for each of the weight's dimensions.
        """
        part: Tensor = self._files[self._headers[name].file].get_slice(name)[region]
        return part

    def read_whole(self, name: str) -> Tensor:
        """All of a weight, as `read`."""
        return self.read(name, tuple(slice(0, size) for size in self.shape(name)))


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
    """
    assert 0 <= rank < ranks
    model = _without_memory(local_config(config, ranks) if ranks > 1 else config, dtype, attn_implementation)
    weights = {name: _allocate(model, name, dtype, device) for name, _ in list(model.named_parameters())}
    if model.config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    # not of the files: computed, in float32, as the model's own class does
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config).to(device)
    headers = {name: header for name, header in read_headers(folder).items() if name in weights}
    with WeightReader(folder, headers) as reader, ThreadPoolExecutor(THREADS) as threads:
        tasks = [threads.submit(fill, weights[name], reader, name, rank) for name in headers]
        try:
            for task in tasks:
                task.result()
        finally:
            threads.shutdown(cancel_futures=True)
    assert headers.keys() == weights.keys()
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    model.eval()
    return model


def fill(weight: Tensor, reader: WeightReader, name: str, rank: int) -> None:
    """Copy a weight out of the files, or the rank's part of it."""
    copy_part(weight, reader.read(name, rank_region(reader.shape(name), weight.shape, rank)), name, rank)


def copy_part(weight: Tensor, part: Tensor, name: str, rank: int) -> None:
    """Copy numbers into the weight of a rank's model, but for those that another rank adds."""
    assert weight.shape == part.shape
    with torch.no_grad():
        if rank > 0 and name.endswith(ADDED_ONCE):
            weight.zero_()
        else:
            weight.copy_(part)


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
