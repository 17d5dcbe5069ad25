"""A model folder is data: weights come from safetensors inside it, and nothing in it is run or unpickled."""

import contextlib
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from flexray.errors import ModelError
from flexray.models.checkpoint import check_checkpoint, load_model, load_tokenizer


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (str(self._trace),)


@pytest.fixture
def folder(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def trace(tmp_path) -> Path:
    """A file that is there once something hostile has run."""
    return tmp_path / "trace"


def edit(file: Path, **changes: Any) -> None:
    tree = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(tree | changes))


def code(folder: Path, trace: Path) -> None:
    lines = ["import os", f"os.path.exists({str(trace)!r}) or os.mknod({str(trace)!r})"]
    lines += ["from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast"]
    lines += ["class EvilConfig(LlamaConfig): pass", "class EvilForCausalLM(LlamaForCausalLM): pass"]
    lines += ["class EvilTokenizer(PreTrainedTokenizerFast): pass"]
    (folder / "evil.py").write_text("\n".join(lines) + "\n")


PICKLES = [
    "pytorch_model.bin",
    "model.bin",
    "adapter_model.bin",
    "tokenizer.pkl",
    "training_args.bin",
    "optimizer.pt",
]


def test_pickles_alone_are_refused_and_not_opened(folder, trace):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(trace)))
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"x": "pytorch_model.bin"}}')
    for load in (check_checkpoint, load_tokenizer, load_model):
        with pytest.raises(ModelError, match="pickled weights"):
            load(folder)
    assert not trace.exists()


def test_pickles_beside_the_safetensors_are_not_opened(folder, trace):
    for name in PICKLES:
        (folder / name).write_bytes(pickle.dumps(Payload(trace)))
    load_model(folder, device="cpu")
    assert not trace.exists()


def test_the_payload_would_show(trace):
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists()


@pytest.mark.parametrize(
    "name",
    ["adapter_model.bin", "other.safetensors", "../other.safetensors", "model.safetensors.index.json", 7],
)
def test_a_configuration_that_names_its_own_weights_is_refused(folder, trace, name):
    torch.save({"x": Payload(trace)}, folder / "adapter_model.bin")
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    edit(folder / "config.json", transformers_weights=name)
    with pytest.raises(ModelError, match="transformers_weights"):
        load_model(folder, device="cpu")
    assert not trace.exists()


def test_a_configuration_that_names_the_weights_that_are_checked_is_taken(folder):
    edit(folder / "config.json", transformers_weights="model.safetensors")
    load_model(folder, device="cpu")


@pytest.mark.parametrize(
    "place", ["../elsewhere.safetensors", "{}/elsewhere.safetensors", "a/../../elsewhere.safetensors"]
)
def test_an_index_that_names_weights_outside_the_folder_is_refused(folder, tmp_path, place):
    (folder / "a").mkdir()
    weights = load_file(folder / "model.safetensors")
    save_file(weights, tmp_path / "elsewhere.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    weight_map = dict.fromkeys(weights, place.format(tmp_path))
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    with pytest.raises(ModelError, match="outside the folder"):
        check_checkpoint(folder)


def test_an_index_that_names_a_pickle_is_refused(folder, trace):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(trace)))
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "pytorch_model.bin"}}')
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        check_checkpoint(folder)
    assert not trace.exists()


@pytest.mark.parametrize("trusted", [False, True], ids=["untrusted", "tokenizer trusted"])
def test_code_for_the_model_is_never_run(folder, trace, trusted):
    code(folder, trace)
    auto_map = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilForCausalLM"}
    edit(
        folder / "config.json",
        auto_map=auto_map,
        attn_implementation="evil/kernels",
        _attn_implementation="evil",
    )
    edit(folder / "generation_config.json", custom_generate="evil.py")
    model, _ = load_model(folder, device="cpu", trust_remote_code=trusted)
    assert type(model).__module__.startswith("transformers.models.llama.")
    assert model.config._attn_implementation == "eager"
    assert not trace.exists()


@pytest.mark.parametrize("where", ["tokenizer_config.json", "config.json"])
@pytest.mark.parametrize("name", ["EvilTokenizer", "PreTrainedTokenizerFast"])
def test_code_for_the_tokenizer_is_not_run_unless_it_is_trusted(folder, trace, where, name):
    code(folder, trace)
    edit(folder / "tokenizer_config.json", tokenizer_class=name)
    edit(folder / where, auto_map={"AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]})
    with contextlib.suppress(ModelError):  # or another class builds it
        load_tokenizer(folder)
    assert not trace.exists()


def test_code_for_the_tokenizer_is_run_if_it_is_trusted(folder, trace):
    code(folder, trace)
    auto_map = {"AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]}
    edit(folder / "tokenizer_config.json", tokenizer_class="EvilTokenizer", auto_map=auto_map)
    assert type(load_tokenizer(folder, trust_remote_code=True)).__name__ == "EvilTokenizer"
    assert trace.exists()


def test_a_chat_template_is_not_run(folder, trace):
    template = "{{ cycler.__init__.__globals__.os.mknod('" + str(trace) + "') }}"
    edit(folder / "tokenizer_config.json", chat_template=template)
    (folder / "chat_template.jinja").write_text(template)
    load_model(folder, device="cpu")
    assert not trace.exists()
