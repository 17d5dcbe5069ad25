"""What LoRA adapters do to the weights of a model, and doing it.

    W' = W + s B A                    s = alpha / rank, or alpha / sqrt(rank) with use_rslora
    W' = m / |W + s B A| (W + s B A)  with use_dora; |.| of each output channel

(Hu et al. 2021, arXiv:2106.09685; Kalajdzievski 2023, arXiv:2312.03732; Liu et al. 2024, arXiv:2402.09353.)
Each adapter is merged into what those before it have left. It is computed on the CPU in float32 from the
weights as they are in the files, and rounded once, to the dtype of the loaded model.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexray.errors import ConfigError, shown
from flexray.models.hub import model_folder
from flexray.models.lora.adapter_config import CONFIG, EMBEDDINGS, HEAD, AdapterConfig
from flexray.models.lora.adapter_files import TENSORS, AdapterTensors, check_tokenizer, read_adapter
from flexray.models.tensor_parallel import rank_region
from flexray.models.weights import is_part_of_model, read_weights

if TYPE_CHECKING:  # they take seconds to import
    from torch import Tensor
    from transformers import LlamaForCausalLM

EMBEDDINGS_WEIGHT, HEAD_WEIGHT = f"{EMBEDDINGS}.weight", f"{HEAD}.weight"
Load = Callable[[Path, str], "Tensor"]
"""From a safetensors file and a name to the tensor, in float32 on the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What an adapter does to one of the model's weights; tensors by their names in its file."""

    folder: Path
    whole: str = ""
    """What takes the weight's place, before anything is added to it. "": nothing."""
    matrices: tuple[str, str] | None = None
    """A, [rank, in], and B, [out, rank]."""
    magnitude: str = ""
    """The length of each output channel, [out]. "": none, as without DoRA."""
    scaling: float = 1.0
    is_embedding: bool = False
    """The weight is [in, out], not [out, in]."""

    def apply(self, weight: Tensor, load: Load) -> Tensor:
        """The updated weight, float32 as the one that is given. Raises ConfigError: a value is not finite."""
        import torch

        if self.whole:
            weight = self._load(self.whole, load)
        if self.matrices is None:
            return weight
        a, b = (self._load(name, load) for name in self.matrices)
        product = (b @ a).T.contiguous() if self.is_embedding else b @ a
        weight = product.mul_(self.scaling).add_(weight)
        if not self.magnitude:
            return weight
        length = torch.linalg.norm(weight, dim=0 if self.is_embedding else 1)
        factor = self._load(self.magnitude, load) / length
        updated: Tensor = (factor if self.is_embedding else factor[:, None]) * weight
        return updated

    def _load(self, name: str, load: Load) -> Tensor:
        tensor = load(self.folder / TENSORS, name)
        if count := int((~tensor.isfinite()).sum()):
            raise ConfigError(
                f"model.lora: {self.folder / TENSORS}: {name} has {count} of {tensor.numel()} values that "
                "are not finite (NaN or infinity). Copy the adapter again; if it was trained here, that went "
                "wrong."
            )
        return tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Updates:
    """What adapters do to a model."""

    by_weight: dict[str, list[Update]]
    """By the name of the weight, in the order of the adapters."""
    more_parameters: int
    """Those of a head that is the embeddings in the checkpoint, and becomes a weight of its own."""


def check_adapters(path: str | Path, adapters: Sequence[str | Path]) -> Updates:
    """Check that adapters can be merged into a checkpoint, from headers and JSON files alone.

    Args:
        path: a folder or name that passes `check_checkpoint`.
        adapters: folders in PEFT's format, in the order in which they are merged.

    Raises:
        ConfigError: a folder or file is missing or broken, adapter_config.json asks for what is not merged
            here, a tensor is missing, belongs to nothing or has another shape, or the vocabulary is another.
    """
    if not adapters:
        return Updates(by_weight={}, more_parameters=0)
    model = model_folder(path)
    shapes = {name: weight.shape for name, weight in read_weights(model).items() if is_part_of_model(name)}
    is_tied = HEAD_WEIGHT not in shapes
    if is_tied:
        shapes[HEAD_WEIGHT] = shapes[EMBEDDINGS_WEIGHT]
    updates: dict[str, list[Update]] = {}
    for folder in map(Path, adapters):
        for name, update in _updates(folder, shapes, is_tied=is_tied).items():
            earlier = updates.setdefault(name, [])
            if earlier and update.whole.endswith(".base_layer.weight"):
                update = replace(update, whole="")  # not trained: a copy of what the adapter was added to
            if earlier and update.whole:
                raise ConfigError(
                    f"model.lora: {folder / TENSORS}: {update.whole} takes the place of {name}, which "
                    f"{earlier[-1].folder} has changed. Name {folder} before it; two adapters that replace "
                    "the same weight do not go together."
                )
            earlier.append(update)
        check_tokenizer(model, folder)
    unties = is_tied and _changes_embeddings_or_head(updates)
    return Updates(by_weight=updates, more_parameters=prod(shapes[HEAD_WEIGHT]) if unties else 0)


def merge_adapters(
    model: LlamaForCausalLM, path: str | Path, adapters: Sequence[str | Path], *, rank: int = 0
) -> None:
    """Merge adapters into the weights of a model that was loaded from `path`.

    Whole weights are read again and merged, as DoRA needs the length of whole rows; a model that is a rank's
    part of the whole one takes its part of the outcome.

    Where embeddings and head are one weight and an adapter changes one of them, the model gets a head of its
    own: in training, too, the other one was as it is in the checkpoint.

    Raises:
        ConfigError: as `check_adapters`; a tensor is not finite, or an outcome is not in the model's dtype.
    """
    import torch
    from safetensors import safe_open

    from flexray.models.loader import WeightReader, copy_part

    if not adapters:
        return
    updates = check_adapters(path, adapters)
    if updates.more_parameters:
        tied = model.lm_head.weight
        model.lm_head.weight = torch.nn.Parameter(tied.detach().clone(), requires_grad=tied.requires_grad)
        model.config.tie_word_embeddings = False
    folder = model_folder(path)
    stored = read_weights(folder)
    with WeightReader(folder, stored) as reader, contextlib.ExitStack() as files, torch.no_grad():
        opened = functools.cache(lambda file: files.enter_context(safe_open(file, framework="pt")))

        def load(file: Path, name: str) -> Tensor:
            tensor: Tensor = opened(file).get_tensor(name).float()
            return tensor

        for name, each in updates.by_weight.items():
            merged = reader.read(name if name in stored else EMBEDDINGS_WEIGHT).float()
            for update in each:
                merged = update.apply(merged, load)
            loaded = model.get_parameter(name)
            rounded = merged.to(loaded.dtype)
            if not torch.stack(torch.aminmax(rounded)).isfinite().all():  # which pass on NaN
                dtype = str(loaded.dtype).removeprefix("torch.")
                advice = "Set model.dtype: bfloat16." if dtype == "float16" else "Leave that adapter out."
                raise ConfigError(
                    f"model.lora: with {each[-1].folder} merged, {name} is not finite in {dtype}. {advice}"
                )
            copy_part(loaded, rounded[rank_region(rounded.shape, loaded.shape, rank)], name, rank)


def _updates(folder: Path, shapes: dict[str, tuple[int, ...]], *, is_tied: bool) -> dict[str, Update]:
    """What an adapter does, by the name of the weight. Raises ConfigError."""
    config, headers = read_adapter(folder)
    tensors = AdapterTensors(folder, headers, vocabulary=shapes[EMBEDDINGS_WEIGHT][0])
    found = {name: _update(name, shape, config, tensors) for name, shape in shapes.items()}
    updates = {name: update for name, update in found.items() if update.whole or update.matrices}
    if is_tied and _changes_embeddings_or_head(updates):
        if config.ensure_weight_tying:
            raise ConfigError(
                f"model.lora: {folder / CONFIG}: ensure_weight_tying is True, and the adapter changes "
                "embeddings that are the head, too. That is not merged here: train it with False."
            )
        embeddings, head = found[EMBEDDINGS_WEIGHT], found[HEAD_WEIGHT]
        if embeddings.whole and not head.whole and not config.is_saved(EMBEDDINGS):
            # a copy of what was not trained, and was the head, too
            updates[HEAD_WEIGHT] = replace(head, whole=embeddings.whole)
    tensors.check()
    if not updates:
        raise ConfigError(
            f"model.lora: {folder / CONFIG}: target_modules is {shown(config.target_modules, 80)}, and the "
            "model has no such module. Give an adapter of this model."
        )
    return updates


def _update(name: str, shape: tuple[int, ...], config: AdapterConfig, tensors: AdapterTensors) -> Update:
    """What an adapter does to a weight, maybe nothing."""
    module, _, kind = name.rpartition(".")
    is_target, is_embedding = config.is_target(module), module == EMBEDDINGS
    wholes = [f"{module}.{kind}", f"{module}.base_layer.{kind}"]
    is_whole = config.is_saved(module)
    is_whole |= kind == "bias" and (config.bias == "all" or (config.bias == "lora_only" and is_target))
    is_whole |= module in (EMBEDDINGS, HEAD) and any(map(tensors.has, wholes))  # save_embedding_layers
    update = Update(
        folder=tensors.folder,
        whole=tensors.take(shape, *wholes) if is_whole else "",
        is_embedding=is_embedding,
    )
    if not is_target or kind != "weight" or len(shape) != 2:
        return update
    rank, (outer, inner) = config.rank(module), reversed(shape) if is_embedding else shape
    a, b = ("lora_embedding_A", "lora_embedding_B") if is_embedding else ("lora_A.weight", "lora_B.weight")
    return replace(
        update,
        matrices=(tensors.take((rank, inner), f"{module}.{a}"), tensors.take((outer, rank), f"{module}.{b}")),
        magnitude=tensors.take((outer,), f"{module}.lora_magnitude_vector") if config.use_dora else "",
        scaling=config.scaling(module),
    )


def _changes_embeddings_or_head(updates: dict[str, Any]) -> bool:
    return not updates.keys().isdisjoint({EMBEDDINGS_WEIGHT, HEAD_WEIGHT})
