"""The files of a LoRA adapter: its tensors by their headers, each of which has to belong to something."""

from __future__ import annotations

from pathlib import Path

from flexray.errors import ConfigError, ModelError, first_few
from flexray.models.formats import FLOATS, Header
from flexray.models.lora.adapter_config import CONFIG, MERGE, AdapterConfig, read_adapter_config
from flexray.models.weights import read_file_headers

TENSORS, PICKLED, TOKENIZER = "adapter_model.safetensors", "adapter_model.bin", "tokenizer.json"
PREFIX = "base_model.model."
"""What PEFT puts before the names of the model's modules."""
CONVERT = (
    "import torch; from safetensors.torch import save_file; "
    f"t = torch.load('{PICKLED}', map_location='cpu', weights_only=True); "
    f"save_file({{k: v.clone().contiguous() for k, v in t.items()}}, '{TENSORS}')"
)


class AdapterTensors:
    """The tensors of an adapter's file: each is taken by what it belongs to, and has to fit there."""

    def __init__(self, folder: Path, headers: dict[str, Header], *, vocabulary: int):
        self.folder = folder
        self._shapes = {name: header.shape for name, header in headers.items()}
        self._vocabulary = vocabulary
        self._unused = set(headers)
        self._missing: list[str] = []
        self._unfit: list[str] = []
        self._is_resized = False

    def has(self, name: str) -> bool:
        """Whether the file has a tensor, by its name in the model."""
        return PREFIX + name in self._shapes

    def take(self, shape: tuple[int, ...], *names: str) -> str:
        """The name in the file of the first of these tensors that is there."""
        name = PREFIX + next(filter(self.has, names), names[0])
        found = self._shapes.get(name)
        self._unused.discard(name)
        if found is None:
            self._missing.append(name)
        elif found != shape:
            self._unfit.append(f"{name} is {list(found)}, not {list(shape)}")
            self._is_resized |= self._vocabulary in shape and self._vocabulary not in found
        return name

    def check(self) -> None:
        """Check that all tensors fitted, were there, and were taken. Raises ConfigError."""
        place = f"model.lora: {self.folder / TENSORS}"
        if self._unfit:
            advice = "Is it the adapter of another model?"
            if self._is_resized:
                advice = (
                    f"The adapter has another vocabulary than the model's {self._vocabulary:,} tokens, and "
                    f"models are not resized here. {MERGE}"
                )
            raise ConfigError(
                f"{place}: {len(self._unfit)} tensor(s) have another shape than the model and {CONFIG} ask "
                f"for: {first_few(self._unfit)}. {advice}"
            )
        if self._missing:
            raise ConfigError(
                f"{place}: {len(self._missing)} tensor(s) that {CONFIG} asks for are missing: "
                f"{first_few(self._missing)}. Copy both files from the same adapter."
            )
        if self._unused:
            raise ConfigError(
                f"{place}: {len(self._unused)} tensor(s) belong to nothing that {CONFIG} names in the model: "
                f"{first_few(sorted(self._unused))}. Copy both files from the same adapter, of this model."
            )


def read_adapter(folder: Path) -> tuple[AdapterConfig, dict[str, Header]]:
    """The configuration of an adapter, and the headers of its tensors. Raises ConfigError."""
    if not folder.is_dir():
        raise ConfigError(
            f"model.lora: {folder}: no such folder. Give a local folder that every node sees, with {CONFIG} "
            f"and {TENSORS}; nothing is downloaded during a run."
        )
    if not (folder / TENSORS).is_file() and (folder / PICKLED).is_file():
        raise ConfigError(
            f"model.lora: {folder}: has only pickled tensors ({PICKLED}). They are refused, as reading them "
            f'can run code. Convert them once, in that folder: python -c "{CONVERT}"'
        )
    try:
        config, headers = read_adapter_config(folder), read_file_headers(folder / TENSORS)
    except ModelError as e:
        raise ConfigError(f"model.lora: {e}") from e
    if quantised := sorted(f"{name} ({h.dtype})" for name, h in headers.items() if h.dtype not in FLOATS):
        raise ConfigError(
            f"model.lora: {folder / TENSORS}: {len(quantised)} tensor(s) are quantised: "
            f"{first_few(quantised)}. Save the adapter in {', '.join(FLOATS)}."
        )
    return config, headers


def check_tokenizer(model: Path, folder: Path) -> None:
    """Check that an adapter comes with no tokenizer, or with the model's. Raises ConfigError."""
    from tokenizers import Tokenizer

    ours, theirs = model / TOKENIZER, folder / TOKENIZER
    if not (ours.is_file() and theirs.is_file()) or ours.read_bytes() == theirs.read_bytes():
        return
    try:
        known, new = (Tokenizer.from_file(str(file)).get_vocab().items() for file in (ours, theirs))
    except Exception as e:  # tokenizers raises bare Exception
        raise ConfigError(f"model.lora: {theirs}: cannot be read ({e}). Copy the adapter again.") from e
    if other := sorted(new - known, key=lambda token: token[1]):
        raise ConfigError(
            f"model.lora: {theirs}: {len(other)} token(s) are not in the model's tokenizer, or have another "
            f"id: {first_few(f'{token!r:.40} ({i})' for token, i in other)}. The model's tokenizer would be "
            f"used. If the adapter was trained without them, remove the file from its folder. {MERGE}"
        )
