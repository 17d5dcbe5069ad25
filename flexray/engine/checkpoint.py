"""A user's model folder: checked before anything expensive starts, then loaded.

Weights come from safetensors only, code from the installed transformers only: a model folder is
data, and loading it runs nothing that it contains. The one exception is a tokenizer for which the
user has set `trust_remote_code`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexray.compat import adopt_rope, dtype_argument, tokenizer_class
from flexray.engine.families import FAMILIES, check_architecture, check_layers
from flexray.types import ModelError

if TYPE_CHECKING:  # torch and transformers take seconds to import, and a check may fail without them
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER_FILES = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))


def check_checkpoint(path: str | Path) -> LlamaConfig:
    """Check that `path` is a folder flexray can run, reading no weights and running none of its code.

    Returns:
        The model's configuration, a new object on every call.

    Raises:
        ModelError: the folder, its config.json, weights or tokenizer files are missing, broken or
            of a kind that flexray does not run. The message says which, and what to do.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ModelError(
            f"{path}: no such model folder. Give a local folder that every node sees; "
            "nothing is downloaded during a run."
        )
    config = _check_config(folder)
    _check_weights(folder)
    if not any(all((folder / name).is_file() for name in files) for files in TOKENIZER_FILES):
        choices = ", ".join(" + ".join(files) for files in TOKENIZER_FILES)
        raise ModelError(f"{path}: has no tokenizer ({choices}). Copy the tokenizer's files into the folder.")
    return config


def load_tokenizer(path: str | Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The folder's tokenizer, nothing downloaded.

    Raises:
        ModelError: as `check_checkpoint`, or the tokenizer cannot be built.
    """
    from transformers import AutoTokenizer

    config = check_checkpoint(path)
    file = Path(path) / "tokenizer_config.json"
    named = tokenizer_class(_read_json(file) if file.is_file() else {}, Path(path) / "tokenizer.json")
    try:
        with no_progress_bars():
            if named is not None:
                return named.from_pretrained(path, local_files_only=True)
            return AutoTokenizer.from_pretrained(
                path,
                config=config,  # else AutoConfig would read, and may run, what config.json's auto_map names
                local_files_only=True,
                trust_remote_code=trust_remote_code,
            )
    except Exception as e:  # transformers and tokenizers raise many types, bare Exception among them
        raise ModelError(f"{path}: the tokenizer cannot be loaded: {e}") from e


def load_model(
    path: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    trust_remote_code: bool = False,
    attn_implementation: str = "eager",
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """Load the model, in eval mode on its device, and its tokenizer.

    Two calls never share a config object, so that each model keeps its own attention.

    Args:
        path: a folder that passes `check_checkpoint`; it is checked again here.
        dtype: a torch dtype or its name. "auto": bfloat16 on CUDA, float32 on CPU.
        device: "auto": CUDA if there is any, else CPU.
        trust_remote_code: run Python code from the folder to build the tokenizer, never the model.
        attn_implementation: a name that transformers knows, or one registered before.

    Raises:
        ModelError: as `check_checkpoint`; or the weights do not fit the configuration, the tokenizer
            cannot be built, or the device is not there.
    """
    import torch
    import transformers

    config = check_checkpoint(path)
    device = _resolve_device(device)
    if dtype == "auto":
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype

    tokenizer = load_tokenizer(path, trust_remote_code=trust_remote_code)
    with no_progress_bars():
        model, info = getattr(transformers, f"{FAMILIES[config.model_type]}ForCausalLM").from_pretrained(
            path,
            config=config,
            **dtype_argument(kind),
            attn_implementation=attn_implementation,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # else its error names none of them
            output_loading_info=True,
        )
    # transformers fills a weight that is missing, or of another shape, with random numbers and only warns.
    if missing := info["missing_keys"]:
        raise ModelError(
            f"{path}: {len(missing)} weight(s) are missing from the files: {_first_names(missing)}."
        )
    if unfit := [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]:
        raise ModelError(
            f"{path}: the weights do not fit config.json: {len(unfit)} have another shape: "
            f"{_first_names(unfit)}. Copy both from the same checkpoint."
        )
    # And it leaves out weights that the configuration has no place for, such as biases.
    if unknown := [name for name in info["unexpected_keys"] if ".layers." in name]:
        raise ModelError(
            f"{path}: {len(unknown)} weight(s) of the files have no place in config.json's model: "
            f"{_first_names(unknown)}."
        )
    return model.to(device).eval(), tokenizer


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
    if not file.is_file():
        raise ModelError(
            f"{folder}: has no config.json. Give the folder of a checkpoint in the Hugging Face format."
        )
    tree = _read_json(file)
    prefix = check_architecture(tree, file)
    # transformers would load what is named here in place of the weights that are checked, pickles too
    named, checked = tree.get("transformers_weights"), WEIGHTS if (folder / WEIGHTS).is_file() else INDEX
    if named not in (None, checked):
        raise ModelError(
            f"{file}: transformers_weights names {named!r}. Remove the key, and name the weights {checked}."
        )

    import transformers

    try:
        # Not AutoConfig: it would look at `auto_map`, the folder's own code.
        config = getattr(transformers, f"{prefix}Config").from_pretrained(folder, local_files_only=True)
    except Exception as e:  # the types differ between transformers' versions
        raise ModelError(f"{file}: no valid {prefix} configuration: {e}") from e
    adopt_rope(config, tree)
    check_layers(config, file)
    return config


def _check_weights(folder: Path) -> None:
    index = folder / INDEX
    if (folder / WEIGHTS).is_file():
        files = [WEIGHTS]
    elif index.is_file():
        weight_map = _read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelError(f"{index}: has no weight_map. Copy the checkpoint again.")
        files = sorted(set(map(str, weight_map.values())))
        if elsewhere := [name for name in files if Path(name).name != name]:
            names = ", ".join(map(repr, elsewhere[:5])) + (", ..." if len(elsewhere) > 5 else "")
            raise ModelError(f"{index}: names weight files outside the folder: {names}. Put them beside it.")
        missing = [name for name in files if not (folder / name).is_file()]
        if missing:
            names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise ModelError(
                f"{index}: {len(missing)} of {len(files)} weight files are missing: {names}. "
                "Copy the checkpoint again."
            )
    elif any(folder.glob("pytorch_model*.bin")):
        raise ModelError(
            f"{folder}: has only pickled weights (pytorch_model.bin). They are refused, as reading them can "
            'run code. Convert them once, where you trust them: python -c "from transformers import '
            "AutoModelForCausalLM as M; M.from_pretrained('FOLDER', use_safetensors=False)"
            ".save_pretrained('NEW_FOLDER')\", then copy the tokenizer's files."
        )
    else:
        others = sorted(p.name for p in folder.glob("*.safetensors"))
        found = f" (found only {', '.join(others[:3])})" if others else ""
        raise ModelError(f"{folder}: has no weights: {WEIGHTS} or {INDEX} is expected{found}.")

    from safetensors import SafetensorError, safe_open

    for name in files:
        try:  # reads the header and compares the file's length with it: no tensor is loaded
            with safe_open(folder / name, framework="numpy"):
                pass
        except (SafetensorError, OSError) as e:
            raise ModelError(
                f"{folder / name}: not a whole safetensors file ({e}). "
                "It may be cut short, or a Git LFS pointer: copy it again."
            ) from e


def _first_names(names: Iterable[str]) -> str:
    first = sorted(names)
    return ", ".join(first[:3]) + (", ..." if len(first) > 3 else "")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:  # ValueError: no JSON, or no UTF-8
        raise ModelError(f"{file}: cannot be read as JSON: {e}") from e
    if not isinstance(tree, dict):
        raise ModelError(f"{file}: a JSON object is expected, found {type(tree).__name__}.")
    return tree


def _resolve_device(device: str | torch.device) -> torch.device:
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    resolved = torch.device(device)
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ModelError("device is cuda, but torch finds no CUDA device. Use auto or cpu, or a CUDA torch.")
    return resolved
