"""LoRA adapters that PEFT has saved, merged into a model's weights: the numbers are PEFT's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GraniteConfig, LlamaConfig, Olmo2Config, Phi3Config, Qwen2Config, SmolLM3Config

from flexray.models.checkpoint import load_model
from flexray.models.lora import check_adapters
from tests.lora_adapters import load_adapted, logits_of, merge_by_peft, plain_model, save_adapter
from tests.random_models import save_model

SIZES: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "initializer_range": 0.3,
}
MODELS = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=False),
    "biases": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=False),
    "tied": Qwen2Config(**SIZES, tie_word_embeddings=True),
}
OTHERS = {
    "smollm3": SmolLM3Config(**SIZES, pad_token_id=None, no_rope_layers=[1, 0, 1], tie_word_embeddings=False),
    "granite": GraniteConfig(**SIZES, residual_multiplier=0.4, logits_scaling=4.0, tie_word_embeddings=False),
    "olmo2": Olmo2Config(**SIZES, pad_token_id=None),
    "phi3": Phi3Config(**SIZES, pad_token_id=None),
}
"""Families with other modules than LLaMA, or other factors."""
ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 2, r"layers\.1\.self_attn\.v_proj": 6},
        "alpha_pattern": {"v_proj": 32},
    },
    "rslora with patterns": {
        "use_rslora": True,
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"q_proj": 5},
    },
    "all linear": {"target_modules": "all-linear"},
    "a pattern": {"target_modules": r".*\.[02]\.mlp\.(up|down)_proj"},
    "excluded": {"exclude_modules": r".*\.1\..*"},
    "excluded by name": {"exclude_modules": ["layers.1.self_attn.q_proj"]},
    "layers": {"layers_to_transform": [0, 2]},
    "a layer": {"layers_to_transform": 1, "layers_pattern": "layers"},
    "fan in, fan out": {"fan_in_fan_out": True},
    "gaussian": {"init_lora_weights": "gaussian"},
    "biases": {"bias": "all"},
    "biases of targets": {"bias": "lora_only"},
    "dora": {"use_dora": True, "target_modules": ["q_proj", "down_proj"]},
    "saved norm": {"modules_to_save": ["norm"]},
    "saved mlp": {"modules_to_save": ["mlp"]},
    "saved embeddings and head": {"modules_to_save": ["embed_tokens", "lm_head"]},
}
EMBEDDINGS: dict[str, dict[str, Any]] = {
    "saved head": {"modules_to_save": ["lm_head"]},
    "saved embeddings": {"modules_to_save": ["embed_tokens"]},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "head": {"target_modules": ["lm_head", "q_proj"]},
    "embeddings and head": {"target_modules": ["embed_tokens", "lm_head"], "use_rslora": True},
    "dora of embeddings": {"use_dora": True, "target_modules": ["embed_tokens", "o_proj"]},
}
"""Where they are one weight, PEFT merges into both what was trained for one: its logits before are right."""
TEXT = list(range(5, 60))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: save_model(root / name, config) for name, config in MODELS.items()}


@pytest.fixture(params=["biases", "tied"])
def model(models: dict[str, Path], request: pytest.FixtureRequest) -> Path:
    return models[request.param]


def weights_of(folder: Path, *adapters: Path, dtype: str = "float32") -> dict[str, torch.Tensor]:
    model, _ = load_model(folder, dtype=dtype, device="cpu", lora=adapters)
    return {name: weight.detach() for name, weight in model.state_dict().items()}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def assert_same_logits(folder: Path, adapter: Path) -> None:
    """As with the adapter beside the weights; and the adapter does something."""
    merged, _ = load_model(folder, dtype="float32", device="cpu", lora=[adapter])
    expected = logits_of(load_adapted(folder, adapter), TEXT)
    torch.testing.assert_close(logits_of(merged, TEXT), expected, rtol=0, atol=1e-3)
    assert (logits_of(plain_model(folder), TEXT) - expected).abs().max() > 0.1


@pytest.mark.parametrize("name", ADAPTERS)
def test_merged_weights_are_pefts_bit_for_bit_and_answer_as_the_adapter_does(model, tmp_path, name):
    adapter = save_adapter(tmp_path / "adapter", model, **ADAPTERS[name])
    assert_equal(weights_of(model, adapter), merge_by_peft(model, adapter))
    assert_same_logits(model, adapter)


@pytest.mark.parametrize("name", OTHERS)
def test_adapters_of_every_family_are_merged_as_peft_merges_them(tmp_path, name):
    model = save_model(tmp_path / "model", OTHERS[name])
    attention = "qkv_proj" if name == "phi3" else "q_proj"
    for number, config in enumerate(
        [
            {"target_modules": "all-linear", "modules_to_save": ["post_attention_layernorm"]},
            {"target_modules": [attention, "down_proj"], "use_dora": True},
        ]
    ):
        adapter = save_adapter(tmp_path / f"{number}", model, **config)
        assert_equal(weights_of(model, adapter), merge_by_peft(model, adapter))
        assert_same_logits(model, adapter)


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_an_adapter_of_embeddings_or_head_answers_as_in_training_tied_or_not(model, models, tmp_path, name):
    adapter = save_adapter(tmp_path / "adapter", model, **EMBEDDINGS[name])
    assert_same_logits(model, adapter)
    if model != models["tied"]:
        assert_equal(weights_of(model, adapter), merge_by_peft(model, adapter))


@pytest.mark.parametrize("config", [*EMBEDDINGS.values(), {}], ids=[*EMBEDDINGS, "neither"])
def test_a_head_of_its_own_is_counted_before_it_is_there(models, tmp_path, config):
    adapter = save_adapter(tmp_path / "adapter", models["tied"], **config)
    merged, _ = load_model(models["tied"], device="cpu", lora=[adapter])
    plain, _ = load_model(models["tied"], device="cpu")
    more = sum(p.numel() for p in merged.parameters()) - sum(p.numel() for p in plain.parameters())
    assert check_adapters(models["tied"], [adapter]).more_parameters == more == (256 * 48 if config else 0)
    assert merged.config.tie_word_embeddings == (not config)


def test_embeddings_that_were_saved_beside_an_adapter_take_the_models_place(models, tmp_path):
    for name, folder in models.items():
        adapter = tmp_path / name
        save_adapter(adapter, folder, target_modules=["embed_tokens", "q_proj"])
        tensors = load_file(adapter / "adapter_model.safetensors")
        tensors["base_model.model.model.embed_tokens.base_layer.weight"] *= 1.5
        save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
        assert_same_logits(folder, adapter)


def test_adapters_are_merged_one_after_the_other(model, tmp_path):
    dora = {"use_dora": True, "target_modules": ["q_proj", "up_proj"]}
    first = save_adapter(tmp_path / "first", model, seed=1)
    second = save_adapter(tmp_path / "second", model, seed=2, **dora)
    expected = merge_by_peft(model, first, second)
    assert_equal(weights_of(model, first, second), expected)
    other = weights_of(model, second, first)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.allclose(other[name], expected[name])
    assert_equal(other, merge_by_peft(model, second, first))


def test_adapters_of_the_same_embeddings_add_up_though_each_has_a_copy_of_them(models, tmp_path):
    targets = {"target_modules": ["embed_tokens"]}
    folder, name = models["tied"], "model.embed_tokens.weight"
    adapters = [save_adapter(tmp_path / f"{seed}", folder, seed=seed, **targets) for seed in (1, 2)]
    plain = weights_of(folder)[name]
    changes = [weights_of(folder, adapter)[name] - plain for adapter in adapters]
    torch.testing.assert_close(weights_of(folder, *adapters)[name], plain + sum(changes), rtol=0, atol=1e-5)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_merge_is_in_float32_and_rounded_once(models, tmp_path, dtype, stored):
    folder = Path(shutil.copytree(models["llama"], tmp_path / "model"))
    plain = {
        name: (weight + 1e-3 * torch.randn_like(weight)).to(stored)
        for name, weight in plain_model(folder).state_dict().items()
    }
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    adapters = [save_adapter(tmp_path / f"{seed}", folder, seed=seed, scale=0.02) for seed in range(3)]
    kind = getattr(torch, dtype)
    expected = {name: weight.to(kind) for name, weight in merge_by_peft(folder, *adapters).items()}
    assert_equal(weights_of(folder, *adapters, dtype=dtype), expected)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_an_adapter_in_half_precision_is_merged_in_float32(models, tmp_path, stored):
    adapter = save_adapter(tmp_path / "adapter", models["llama"])
    file = adapter / "adapter_model.safetensors"
    halves = {name: tensor.to(stored) for name, tensor in load_file(file).items()}
    save_file(halves, file, metadata={"format": "pt"})
    assert_equal(weights_of(models["llama"], adapter), merge_by_peft(models["llama"], adapter))


def test_a_sharded_checkpoint_is_merged_as_a_whole_one(models, tmp_path):
    sharded = save_model(tmp_path / "sharded", MODELS["llama"], shard_size="60KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    adapter = save_adapter(tmp_path / "adapter", models["llama"])
    assert_equal(weights_of(sharded, adapter), weights_of(models["llama"], adapter))


def test_no_adapter_changes_nothing(models):
    assert_equal(weights_of(models["tied"]), dict(plain_model(models["tied"]).state_dict()))


def test_the_base_model_that_an_adapter_names_is_not_looked_for(models, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", models["llama"])
    before = weights_of(models["llama"], adapter)
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "no/such-model"}))
    assert_equal(weights_of(models["llama"], adapter), before)
