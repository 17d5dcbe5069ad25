"""A user's model folder: checked before anything expensive starts, then loaded.

Weights come from safetensors only, code from the installed transformers only: a model folder is
data, and loading it runs nothing that it contains. The one exception is a tokenizer for which the
user has set `trust_remote_code`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flexray.errors import ModelError
from flexray.models.compat import adopt_rope, tokenizer_class
from flexray.models.families import (
    check_architecture,
    check_layers,
    check_numbers,
    read_json,
    reason,
)
from flexray.models.formats import find_format
from flexray.models.hub import model_folder, refuse_code
from flexray.models.lora import merge_adapters
from flexray.models.lora.adapter_config import CONFIG
from flexray.models.weights import HEAD, INDEX, WEIGHTS, check_fit, read_weights

if TYPE_CHECKING:  # torch and transformers take seconds to import, and a check may fail without them
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

GENERATION = "generation_config.json"
TOKENIZER_FILES = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))


def check_checkpoint(path: str | Path) -> LlamaConfig:
    """Check that `path` is a model flexray can run, reading no weights and running none of its code.

    Args:
        path: a folder, or the name of a model of the Hugging Face hub that is in this machine's cache.

    Returns:
        The model's configuration, a new object on every call. Its head is tied to its embeddings if
        config.json says so and the files hold no head: releases of transformers differ where they do. It
        names no padding token: nothing is padded, and a model cannot be made with one that it does not have;
        nor how weights are quantised, as those that are loaded are not.

    Raises:
        ModelError: the folder, its config.json, weights or tokenizer files are missing, broken or
            of a kind that flexray does not run. The message says which, and what to do.
        ConfigError: the model is named, and the cache does not have it.
    """
    folder = model_folder(path)
    if not folder.is_dir():
        raise ModelError(
            f"{path}: no such model folder. Give a local folder that every node sees, or the name of a model "
            "of the Hugging Face hub: owner/name@revision."
        )
    config = _check_config(folder)
    weights = read_weights(folder)
    config.tie_word_embeddings = config.tie_word_embeddings and HEAD not in weights
    config.pad_token_id = None
    check_fit(config, weights, folder / "config.json")
    read_eos(folder)
    if not any(all((folder / name).is_file() for name in files) for files in TOKENIZER_FILES):
        choices = ", ".join(" + ".join(files) for files in TOKENIZER_FILES)
        raise ModelError(f"{path}: has no tokenizer ({choices}). Copy the tokenizer's files into the folder.")
    return config


def read_eos(folder: Path) -> dict[str, list[int]]:
    """The ids that end an answer, by the file that names them; they may be beyond the vocabulary.

    Raises:
        ModelError: a file is broken, or names something else.
    """
    found: dict[str, list[int]] = {}
    for name in ("config.json", GENERATION):
        file = folder / name
        value = read_json(file).get("eos_token_id") if file.is_file() else None
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(i) is int for i in ids):
            raise ModelError(
                f"{file}: eos_token_id is {value!r:.80}; it has to be a token's id (a whole number), a list "
                "of them, or null. Copy the file again."
            )
        found[name] = ids
    return found


def load_tokenizer(path: str | Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The model's tokenizer, nothing downloaded.

    Raises:
        ModelError: as `check_checkpoint`, or the tokenizer cannot be built.
        ConfigError: as `check_checkpoint`, or code of the hub is to be run.
    """
    from transformers import AutoTokenizer

    config = check_checkpoint(path)
    if trust_remote_code:
        refuse_code(path)
    path = model_folder(path)
    file = Path(path) / "tokenizer_config.json"
    tree = read_json(file) if file.is_file() else {}
    named = tokenizer_class(tree, Path(path) / "tokenizer.json")
    try:
        with no_progress_bars():
            if named is not None:
                tokenizer: PreTrainedTokenizerBase = named.from_pretrained(path, local_files_only=True)
                return tokenizer
            return AutoTokenizer.from_pretrained(
                path,
                config=config,  # else AutoConfig would read, and may run, what config.json's auto_map names
                local_files_only=True,
                trust_remote_code=trust_remote_code,
            )
    except Exception as e:  # transformers and tokenizers raise many types, bare Exception among them
        advice = "Copy the tokenizer's files again."
        if not trust_remote_code and (tree.get("auto_map") or "trust_remote_code" in str(e)):
            advice = (
                "It is made by Python code (auto_map): if you trust it, set model.trust_remote_code: true."
            )
        elif not (Path(path) / "tokenizer.json").is_file() and (Path(path) / "tokenizer.model").is_file():
            advice = (
                "tokenizer.model takes the package sentencepiece: pip install sentencepiece, or where it is "
                "installed, write a tokenizer.json with AutoTokenizer.from_pretrained(FOLDER)"
                ".save_pretrained(FOLDER)."
            )
        raise ModelError(f"{path}: the tokenizer cannot be loaded: {reason(e)}. {advice}") from e


def load_model(
    path: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    trust_remote_code: bool = False,
    attn_implementation: str = "eager",
    lora: Sequence[str | Path] = (),
    rank: int = 0,
    ranks: int = 1,
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """Load the model, in eval mode on its device, and its tokenizer.

    Two calls never share a config object, so that each model keeps its own attention.

    Args:
        path: a folder or name that passes `check_checkpoint`; it is checked again here.
        dtype: a torch dtype or its name. "auto": bfloat16 on CUDA, float32 on CPU.
        device: "auto": CUDA if there is any, else CPU.
        trust_remote_code: run Python code from the folder to build the tokenizer, never the model.
        attn_implementation: a name that transformers knows, or one registered before.
        lora: folders of adapters in PEFT's format, merged into the weights in this order.
        rank, ranks: of a model that is split over several GPUs, which of how many parts; then the model is
            that rank's (`flexray.models.tensor_parallel`).

    Raises:
        ModelError: as `check_checkpoint`; or a weight is not finite, the tokenizer cannot be built, or the
            device is not there.
        ConfigError: as `load_tokenizer`; or an adapter cannot be merged, or the model not be split so.
    """
    import torch
    import transformers

    from flexray.models.loader import check_finite, load_weights, resolve_device

    config = check_checkpoint(path)
    device = resolve_device(device)
    on_gpu = device.type == "cuda"
    kind = getattr(torch, resolve_dtype(dtype, on_gpu=on_gpu)) if isinstance(dtype, str) else dtype

    tokenizer = load_tokenizer(path, trust_remote_code=trust_remote_code)
    path = model_folder(path)
    eos = read_eos(path)[GENERATION]
    model = load_weights(
        path,
        config,
        dtype=kind,
        device=device,
        attn_implementation=attn_implementation,
        rank=rank,
        ranks=ranks,
    )
    # all that is asked of it; transformers passes over a broken file, and refuses other ones
    model.generation_config = transformers.GenerationConfig(eos_token_id=eos or None)
    check_finite(model, path)
    merge_adapters(model, path, lora, rank=rank)
    return model, tokenizer


def resolve_dtype(dtype: str, *, on_gpu: bool) -> str:
    """The dtype that `model.dtype` stands for: "auto" is bfloat16 on a GPU and float32 on CPUs."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if on_gpu else "float32"


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Silence transformers' progress bars, which fill a worker's log; as before afterwards."""
    from transformers.utils import logging

    were_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_on:
            logging.enable_progress_bar()


def _check_config(folder: Path) -> LlamaConfig:
    file = folder / "config.json"
    if (folder / CONFIG).is_file():
        advice = "Name it in model.lora, and the folder of its base model in model.path."
        if (
            file.is_file()
        ):  # transformers would add the adapter to the model, but only where PEFT is installed
            advice = (
                "Move it into a folder of its own and name that in model.lora, or remove it if it is merged."
            )
        raise ModelError(f"{folder}: holds a LoRA adapter ({CONFIG}). {advice}")
    if not file.is_file():
        raise ModelError(
            f"{folder}: has no config.json. Give the folder of a checkpoint in the Hugging Face format."
        )
    tree = read_json(file)
    prefix = check_architecture(tree, file)
    check_numbers(tree, file)
    find_format(tree, file)
    # transformers would load what is named here in place of the weights that are checked, pickles too
    named, checked = tree.get("transformers_weights"), WEIGHTS if (folder / WEIGHTS).is_file() else INDEX
    if named not in (None, checked):
        raise ModelError(
            f"{file}: transformers_weights names {named!r}. Remove the key, and name the weights {checked}."
        )

    import transformers

    try:
        # Not AutoConfig: it would look at `auto_map`, the folder's own code.
        config: LlamaConfig = getattr(transformers, f"{prefix}Config").from_pretrained(
            folder, local_files_only=True
        )
        adopt_rope(config, tree)
        vars(config).pop("quantization_config", None)
    except Exception as e:  # the types differ between transformers' versions
        raise ModelError(
            f"{file}: no valid {prefix} configuration: {reason(e)}. Correct it, or copy it again."
        ) from e
    check_layers(config, file)
    return config
