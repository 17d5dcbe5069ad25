"""A checkpoint's weights: the files that hold them, and whether they are those of its configuration.

Of files only headers are read, in milliseconds. That the numbers are numbers is seen once they are loaded
(`flexray.models.loader`).
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexray.errors import ModelError, first_few
from flexray.models.compat import rope_parameters
from flexray.models.families import COPY, FAMILIES, SIZES, check_rotary, read_json, reason
from flexray.models.formats import (
    FLOATS,
    Header,
    StoredWeight,
    check_parts,
    extra_biases,
    find_format,
    stored_weights,
)

if TYPE_CHECKING:  # they take seconds to import
    from transformers import LlamaConfig, LlamaForCausalLM

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
HEAD = "lm_head.weight"


def read_weights(folder: Path) -> dict[str, StoredWeight]:
    """A checkpoint's weights by their names in the model, and which tensors hold them; none is loaded.

    Raises:
        ModelError: as `read_headers`; or config.json is broken, or names a way to quantise that is not read.
    """
    file = folder / "config.json"
    return stored_weights(read_headers(folder), find_format(read_json(file), file))


def read_headers(folder: Path) -> dict[str, Header]:
    """Of each tensor of a checkpoint, by name; no tensor is loaded.

    Raises:
        ModelError: there are no weights; a file is missing, cut short or of another format; or the index
            and the files disagree.
    """
    files, index = _weight_files(folder)
    headers: dict[str, Header] = {}
    for file in files:
        for name, header in read_file_headers(folder / file).items():
            if name in headers:
                raise ModelError(
                    f"{folder}: {name} is in {headers[name].file} and in {file}. Copy the checkpoint again."
                )
            headers[name] = header
    if index is not None:
        _check_index(index, headers, folder / INDEX)
    return headers


def read_file_headers(file: Path) -> dict[str, Header]:
    """Of each tensor of a safetensors file, by name; no tensor is loaded.

    Raises:
        ModelError: the file is missing, cut short or of another format.
    """
    from safetensors import SafetensorError, safe_open

    try:  # compares the file's length with its header, too
        with safe_open(file, framework="numpy") as weights:
            slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118  it is no dict
            return {
                name: Header(file.name, tuple(tensor.get_shape()), str(tensor.get_dtype()))
                for name, tensor in slices.items()
            }
    except FileNotFoundError as e:
        raise ModelError(f"{file}: no such file. Is the folder whole?") from e
    except (SafetensorError, OSError) as e:
        raise ModelError(
            f"{file}: not a whole safetensors file ({e}). "
            "It may be cut short, or a Git LFS pointer: copy it again."
        ) from e


def check_fit(config: LlamaConfig, weights: dict[str, StoredWeight], file: Path) -> None:
    """Check that the weights are those of a configuration's model: all of them, of their shapes, no others.

    Args:
        file: the config.json, for the message.

    Raises:
        ModelError: they are not; or a weight is quantised otherwise than config.json says.
    """
    plain = {name: weight.header.dtype for name, weight in weights.items() if weight.format is None}
    quantised = {name: dtype for name, dtype in plain.items() if dtype not in FLOATS}
    if quantised:
        otherwise = " otherwise than config.json says" if len(plain) < len(weights) else ""
        raise ModelError(
            f"{file.parent}: {len(quantised)} weight(s) are quantised{otherwise}: "
            f"{first_few(sorted(f'{name} ({dtype})' for name, dtype in quantised.items()))}. "
            "Give the unquantised checkpoint, or dequantise it first."
        )
    layers = 1 + max((int(m[1]) for m in map(_LAYER.match, weights) if m), default=-1)
    if layers != config.num_hidden_layers:  # said here as nobody could wait for a model of 10**9 layers
        raise ModelError(
            f"{file}: num_hidden_layers is {config.num_hidden_layers}, and the files hold {layers} layers. "
            f"{COPY}"
        )
    model = _without_memory(config, file)
    tied = {HEAD} if config.tie_word_embeddings else set()
    expected = {name: tuple(w.shape) for name, w in model.state_dict().items() if name not in tied}
    if missing := expected.keys() - weights.keys():
        tie = " If the embeddings are the head, set tie_word_embeddings to true." if HEAD in missing else ""
        raise ModelError(
            f"{file.parent}: {len(missing)} weight(s) are missing from the files: "
            f"{first_few(sorted(missing))}. {COPY}{tie}"
        )
    check_parts(weights, expected, file.parent)
    unfit = [
        f"{name} is {list(weights[name].shape)}, not {list(shape)}"
        for name, shape in expected.items()
        if weights[name].shape != shape
    ]
    if unfit:
        sizes = ", ".join(f"{key} {getattr(config, key, None)}" for key in SIZES)
        raise ModelError(
            f"{file}: the weights do not fit config.json ({sizes}): {len(unfit)} have another shape: "
            f"{first_few(sorted(unfit))}. {COPY}"
        )
    known = expected.keys() | set(extra_biases(weights, expected))  # whose zeros are looked at when loading
    if unknown := [name for name in weights.keys() - known if is_part_of_model(name)]:
        raise ModelError(
            f"{file.parent}: {len(unknown)} weight(s) of the files have no place in config.json's model: "
            f"{first_few(sorted(unknown))}. {COPY}"
        )
    check_rotary(model, config, file)


def is_part_of_model(name: str) -> bool:
    """Whether a tensor of a checkpoint is a weight of the model: not so heads for other purposes, nor the
    frequencies of RoPE, which old checkpoints hold and models compute."""
    return name.startswith(("model.", "lm_head.")) and not name.endswith("rotary_emb.inv_freq")


_LAYER = re.compile(r"model\.layers\.(\d{1,9})\.")


def _check_index(index: dict[str, Any], headers: dict[str, Header], file: Path) -> None:
    held = {(name, header.file) for name, header in headers.items()}
    if wrong := {name for name, _ in held ^ set(index["weight_map"].items())}:
        raise ModelError(
            f"{file}: {len(wrong)} weight(s) are not in the files that it names: {first_few(sorted(wrong))}. "
            "Copy the checkpoint again."
        )
    if not isinstance(index.get("metadata"), dict):  # which transformers looks for
        raise ModelError(f'{file}: has no metadata. Copy it again, or add "metadata": {{}}.')


def _weight_files(folder: Path) -> tuple[Sequence[str], dict[str, Any] | None]:
    """Names of the files, and the index that names them; None: there is none, nor a need for one."""
    index = folder / INDEX
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS], None
    if not index.is_file():
        raise _no_weights(folder)
    tree = read_json(index)
    weight_map = tree.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index}: has no weight_map. Copy the checkpoint again.")
    files = sorted(set(map(str, weight_map.values())))
    if elsewhere := [name for name in files if Path(name).name != name]:
        raise ModelError(
            f"{index}: names weight files outside the folder: {first_few(sorted(map(repr, elsewhere)))}. "
            "Put them beside it."
        )
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise ModelError(
            f"{index}: {len(missing)} of {len(files)} weight files are missing: "
            f"{first_few(sorted(missing))}. Copy the checkpoint again."
        )
    return files, tree


def _no_weights(folder: Path) -> ModelError:
    if any(folder.glob("pytorch_model*.bin")):
        return ModelError(
            f"{folder}: has only pickled weights (pytorch_model.bin). They are refused, as reading them can "
            'run code. Convert them once, where you trust them: python -c "from transformers import '
            "AutoModelForCausalLM as M; M.from_pretrained('FOLDER', use_safetensors=False)"
            ".save_pretrained('NEW_FOLDER')\", then copy the tokenizer's files."
        )
    if (folder / WEIGHTS).is_symlink() and not (folder / WEIGHTS).exists():
        target = os.readlink(folder / WEIGHTS)
        return ModelError(
            f"{folder / WEIGHTS}: is a link to {target}, which is not there. Copy the folder with the files "
            "that its links stand for (cp -rL)."
        )
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    found = f" (found only {first_few(sorted(others))})" if others else ""
    return ModelError(f"{folder}: has no weights: {WEIGHTS} or {INDEX} is expected{found}.")


def _without_memory(config: LlamaConfig, file: Path) -> LlamaForCausalLM:
    """A configuration's model, whose weights have shapes and no numbers. Raises ModelError."""
    import torch
    import transformers

    prefix = FAMILIES[config.model_type]
    config = copy.deepcopy(config)
    config._attn_implementation = "eager"  # whatever the file asks for
    try:
        with torch.device("meta"):
            model: LlamaForCausalLM = getattr(transformers, f"{prefix}ForCausalLM")(config)
            return model
    except Exception as e:  # the types differ between transformers' versions
        raise ModelError(
            f"{file}: no {prefix} model can be made of it ({reason(e)}). Correct hidden_act "
            f"({config.hidden_act!r:.80}) or RoPE ({rope_parameters(config)!r:.200})."
        ) from e
