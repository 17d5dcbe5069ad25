"""LoRA adapters that cannot be merged as they were trained are refused: folder, key or tensor, what to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from flexray.errors import ConfigError, ModelError
from flexray.models.checkpoint import check_checkpoint, load_model
from flexray.models.lora import check_adapters
from flexray.models.lora.adapter_files import CONVERT
from tests.lora_adapters import save_adapter
from tests.random_models import save_model
from tests.unit.models.test_lora import MODELS, SIZES

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), MODELS["llama"])


@pytest.fixture(scope="module")
def saved(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tmp_path_factory.mktemp("adapter"), model)


@pytest.fixture
def adapter(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "adapter"))


def edit_config(adapter: Path, **changes: Any) -> None:
    file = adapter / CONFIG
    tree = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in tree.items() if value is not ...}))


def edit_tensors(adapter: Path, edit: Callable[[Tensors], object]) -> None:
    tensors = load_file(adapter / TENSORS)
    edit(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, adapter / TENSORS)


def refusal(model: Path, *adapters: Path) -> str:
    """What is said of them, on one line; by the loader, too."""
    with pytest.raises(ConfigError) as refused:
        check_adapters(model, adapters)
    with pytest.raises(ConfigError, match=re.escape(str(refused.value))):
        load_model(model, device="cpu", lora=adapters)
    assert str(refused.value).startswith(f"model.lora: {adapters[-1]}")
    return str(refused.value)


@pytest.mark.parametrize(
    ("key", "value", "advice"),
    [
        ("peft_type", "IA3", "flexray merges adapters of LoRA only"),
        ("peft_type", "ADALORA", "give the merged checkpoint as model.path"),
        ("init_lora_weights", "pissa", "path_initial_model_for_weight_conversion"),
        ("init_lora_weights", "loftq", "path_initial_model_for_weight_conversion"),
        ("bias", "some", "Correct it, or copy the adapter again"),
        ("r", 0, "Correct it"),
        ("r", "4", "Correct it"),
        ("lora_alpha", float("nan"), "Correct it"),
        ("use_dora", "yes", "Correct it"),
        ("rank_pattern", {"q_proj": -1}, "Correct it"),
        ("alpha_pattern", {"(": 1.0}, "is no regular expression"),
        ("target_modules", "(q_proj", "is no regular expression"),
        ("target_modules", 3, "Correct it"),
        ("layers_to_transform", "0", "Correct it"),
        ("modules_to_save", "lm_head", "Correct it"),
    ],
)
def test_a_value_that_is_not_merged_is_refused_by_its_key(model, adapter, key, value, advice):
    edit_config(adapter, **{key: value})
    said = refusal(model, adapter)
    assert f"{CONFIG}: {key} is {value!r}: " in said
    assert advice in said


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lora_bias", True),
        ("use_qalora", True),
        ("target_parameters", ["mlp.experts.gate_up_proj"]),
        ("trainable_token_indices", [0, 1]),
        ("layer_replication", [[0, 2], [1, 3]]),
        ("alora_invocation_tokens", [1, 2]),
        ("kasa_config", {"beta": 1e-4}),
        ("a_key_of_next_year", 1),
    ],
)
def test_a_key_that_makes_it_another_kind_of_lora_is_refused_by_name(model, adapter, key, value):
    edit_config(adapter, **{key: value})
    said = refusal(model, adapter)
    assert f"{CONFIG}: {key} is {value!r}, and flexray merges no such adapters" in said
    assert "give the merged checkpoint as model.path" in said
    edit_config(adapter, **{key: None})
    check_adapters(model, [adapter])


@pytest.mark.parametrize("value", [None, ...])
def test_an_adapter_that_names_no_modules_is_refused(model, adapter, value):
    edit_config(adapter, target_modules=value)
    assert "target_modules is missing" in refusal(model, adapter)


def test_layers_go_with_a_list_of_modules_only(model, adapter):
    edit_config(adapter, target_modules=".*q_proj", layers_to_transform=[0])
    assert "layers_to_transform is [0], which goes with a list" in refusal(model, adapter)


def test_modules_that_the_model_does_not_have_are_refused(model, adapter):
    edit_config(adapter, target_modules=["c_attn"])
    edit_tensors(adapter, dict.clear)
    said = refusal(model, adapter)
    assert "target_modules is ['c_attn'], and the model has no such module" in said


def test_tied_adapters_of_tied_embeddings_are_refused(tmp_path):
    folder = save_model(tmp_path / "tied", MODELS["tied"])
    config = {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}
    adapter = save_adapter(tmp_path / "adapter", folder, **config)
    assert "ensure_weight_tying is True" in refusal(folder, adapter)


def another_layer(tensors: Tensors) -> None:
    tensors[Q_PROJ.replace("layers.0", "layers.7") + ".lora_A.weight"] = torch.zeros(4, 48)


def test_a_tensor_that_nothing_uses_is_refused_by_name(model, adapter):
    edit_tensors(adapter, another_layer)
    assert "1 tensor(s) belong to nothing" in (said := refusal(model, adapter))
    assert "base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight" in said


@pytest.mark.parametrize(
    "name", ["model.norm.weight", "model.layers.0.self_attn.q_proj.weight", "score.weight"]
)
def test_a_whole_weight_that_was_not_trained_by_the_config_belongs_to_nothing(model, adapter, name):
    edit_tensors(adapter, lambda tensors: tensors.update({f"base_model.model.{name}": torch.zeros(48)}))
    assert f"belong to nothing that {CONFIG} names in the model: base_model.model.{name}." in refusal(
        model, adapter
    )


@pytest.mark.parametrize("suffix", ["lora_A.weight", "lora_B.weight"])
def test_a_target_without_a_tensor_is_refused_by_name(model, adapter, suffix):
    edit_tensors(adapter, lambda tensors: tensors.pop(f"{Q_PROJ}.{suffix}"))
    said = refusal(model, adapter)
    assert f"1 tensor(s) that {CONFIG} asks for are missing: {Q_PROJ}.{suffix}." in said


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"modules_to_save": ["lm_head"]}, "base_model.model.lm_head.weight"),
        ({"use_dora": True}, f"{Q_PROJ}.lora_magnitude_vector"),
        ({"target_modules": "all-linear"}, "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"),
    ],
)
def test_what_the_config_asks_for_and_the_file_does_not_have_is_named(model, adapter, changes, missing):
    edit_config(adapter, **changes)
    assert missing in refusal(model, adapter)


def test_shapes_that_do_not_fit_are_both_named(model, adapter):
    edit_config(adapter, r=8)
    said = refusal(model, adapter)
    assert f"{Q_PROJ}.lora_A.weight is [4, 48], not [8, 48]" in said
    assert "12 tensor(s) have another shape than the model and adapter_config.json ask for" in said


def test_the_adapter_of_a_wider_model_is_refused_with_both_shapes(model, tmp_path):
    wide = save_model(tmp_path / "wide", LlamaConfig(**SIZES | {"hidden_size": 64}))
    said = refusal(model, save_adapter(tmp_path / "adapter", wide))
    assert f"{Q_PROJ}.lora_A.weight is [4, 64], not [4, 48]" in said


@pytest.mark.parametrize(
    "config", [{"modules_to_save": ["embed_tokens", "lm_head"]}, {"target_modules": ["embed_tokens"]}]
)
def test_another_vocabulary_is_refused(model, tmp_path, config):
    larger = save_model(tmp_path / "larger", LlamaConfig(**SIZES | {"vocab_size": 260}))
    said = refusal(model, save_adapter(tmp_path / "adapter", larger, **config))
    assert "260" in said
    assert "has another vocabulary than the model's 256 tokens" in said


def test_a_tokenizer_with_other_tokens_is_refused_by_them(model, adapter):
    tree = json.loads((model / "tokenizer.json").read_text())
    (adapter / "tokenizer.json").write_text(json.dumps(tree, indent=4))
    check_adapters(model, [adapter])
    more = {"id": 256, "content": "<tool>", "special": True}
    more |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    (adapter / "tokenizer.json").write_text(
        json.dumps(tree | {"added_tokens": [*tree["added_tokens"], more]})
    )
    said = refusal(model, adapter)
    assert "1 token(s) are not in the model's tokenizer, or have another id: '<tool>' (256)" in said
    (adapter / "tokenizer.json").write_text("{")
    assert "tokenizer.json: cannot be read" in refusal(model, adapter)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_refused_when_it_is_loaded(model, adapter, value):
    name = f"{Q_PROJ}.lora_B.weight"
    edit_tensors(adapter, lambda tensors: tensors[name].view(-1)[3:5].fill_(value))
    check_adapters(model, [adapter])
    with pytest.raises(ConfigError) as refused:
        load_model(model, device="cpu", lora=[adapter])
    assert f"{adapter / TENSORS}: {name} has 2 of 256 values that are not finite" in str(refused.value)


def test_an_outcome_that_is_too_large_for_the_dtype_is_told_from_a_broken_adapter(model, adapter):
    edit_tensors(adapter, lambda tensors: tensors[f"{Q_PROJ}.lora_B.weight"].mul_(1e6))
    with pytest.raises(
        ConfigError, match=r"q_proj\.weight is not finite in float16\. Set model\.dtype: bfloat16"
    ):
        load_model(model, device="cpu", dtype="float16", lora=[adapter])
    load_model(model, device="cpu", dtype="bfloat16", lora=[adapter])


def test_an_adapter_that_undoes_an_earlier_one_is_refused(model, tmp_path):
    targets = save_adapter(tmp_path / "targets", model, target_modules=["lm_head"])
    saves = save_adapter(tmp_path / "saves", model, modules_to_save=["lm_head"])
    said = refusal(model, targets, saves)
    assert f"takes the place of lm_head.weight, which {targets} has changed. Name {saves} before it" in said
    check_adapters(model, [saves, targets])
    assert "two adapters that replace the same weight do not go together" in refusal(model, saves, saves)


def test_pickled_tensors_are_refused_and_the_advice_converts_them(model, adapter):
    expected = load_file(adapter / TENSORS)
    torch.save(expected, adapter / "adapter_model.bin")
    (adapter / TENSORS).unlink()
    assert f'Convert them once, in that folder: python -c "{CONVERT}"' in refusal(model, adapter)
    subprocess.run([sys.executable, "-c", CONVERT], cwd=adapter, check=True)
    found = load_file(adapter / TENSORS)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    check_adapters(model, [adapter])


def test_a_folder_that_is_not_there_or_not_whole_is_named(model, adapter):
    assert "no such folder" in refusal(model, adapter / "nowhere")
    content = (adapter / TENSORS).read_bytes()
    (adapter / TENSORS).write_bytes(content[:-10])
    assert f"{adapter / TENSORS}: not a whole safetensors file" in refusal(model, adapter)
    (adapter / TENSORS).unlink()
    assert f"{adapter / TENSORS}: no such file" in refusal(model, adapter)
    (adapter / TENSORS).write_bytes(content)
    (adapter / CONFIG).write_text("[")
    assert f"{adapter / CONFIG}: cannot be read as JSON" in refusal(model, adapter)
    (adapter / CONFIG).unlink()
    assert f"{adapter / CONFIG}: no such file" in refusal(model, adapter)


def test_quantised_tensors_are_refused(model, adapter):
    edit_tensors(
        adapter, lambda tensors: tensors.update({f"{Q_PROJ}.lora_A.weight": torch.zeros(4, 48).char()})
    )
    assert f"1 tensor(s) are quantised: {Q_PROJ}.lora_A.weight (I8)" in refusal(model, adapter)


def test_an_adapter_in_the_place_of_a_model_is_told_where_it_belongs(model, adapter, tmp_path):
    with pytest.raises(ModelError, match=r"holds a LoRA adapter .* Name it in model\.lora"):
        check_checkpoint(adapter)
    both = Path(shutil.copytree(model, tmp_path / "both"))
    shutil.copy(adapter / CONFIG, both)
    with pytest.raises(ModelError, match=r"holds a LoRA adapter .* Move it into a folder of its own"):
        check_checkpoint(both)
