"""The models of all ranks put together are the whole model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    GraniteConfig,
    LlamaConfig,
    Olmo2Config,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from flexray.errors import ConfigError
from flexray.models.checkpoint import check_checkpoint, load_model
from flexray.models.tensor_parallel import local_config
from tests.lora_adapters import save_adapter
from tests.random_models import save_model

SIZES: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 96,
    "intermediate_size": 60,
    "num_hidden_layers": 2,
    "num_attention_heads": 12,
    "num_key_value_heads": 6,
}
CONFIGS = {
    "llama": LlamaConfig(**SIZES, head_dim=16, tie_word_embeddings=True),
    "llama biases": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=False),
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=False),
    "granite": GraniteConfig(**SIZES, attention_bias=True, mlp_bias=True, residual_multiplier=0.4),
    "smollm3": SmolLM3Config(**SIZES, no_rope_layers=[1, 0], pad_token_id=None, bos_token_id=None),
    "qwen3": Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True),
}
ROWS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
COLUMNS = ("o_proj", "down_proj")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: save_model(root / name, config) for name, config in CONFIGS.items()}


def join(name: str, parts: list[Tensor]) -> Tensor:
    """The whole weight from those of the ranks; asserts that what is not split is the same for all."""
    module, kind = name.split(".")[-2:]
    if module in ROWS:
        return torch.cat(parts)
    if module in COLUMNS and kind == "weight":
        return torch.cat(parts, dim=1)
    if module in COLUMNS:  # biases: added once
        assert all(not part.any() for part in parts[1:])
        return torch.stack(parts).sum(0)
    assert all(torch.equal(part, parts[0]) for part in parts[1:])
    return parts[0]


def load_ranks(folder: Path, ranks: int, **kwargs: Any) -> list[Any]:
    return [load_model(folder, device="cpu", rank=rank, ranks=ranks, **kwargs)[0] for rank in range(ranks)]


def assert_whole(whole: nn.Module, parts: list[Any]) -> None:
    states = [part.state_dict() for part in parts]
    assert all(state.keys() == whole.state_dict().keys() for state in states)
    for name, weight in whole.state_dict().items():
        assert torch.equal(join(name, [state[name] for state in states]), weight), name


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_slices_of_all_ranks_are_the_whole(models, name, ranks):
    whole, _ = load_model(models[name], device="cpu")
    parts = load_ranks(models[name], ranks)
    assert_whole(whole, parts)
    for part in parts:
        assert type(part) is type(whole)
        assert part.config.num_attention_heads == 12 // ranks
        assert part.config.num_key_value_heads == 6 // ranks
        assert part.config.intermediate_size == 60 // ranks
        assert part.config.head_dim == whole.model.layers[0].self_attn.head_dim
        assert part.model.layers[0].self_attn.scaling == whole.model.layers[0].self_attn.scaling
        assert torch.equal(part.model.rotary_emb.inv_freq, whole.model.rotary_emb.inv_freq)
        tied = part.lm_head.weight is part.model.embed_tokens.weight
        assert tied == whole.config.tie_word_embeddings


@pytest.mark.parametrize("name", ["llama biases", "qwen3"])
def test_attention_and_mlp_of_the_ranks_add_up_to_those_of_the_whole(models, name):
    whole, _ = load_model(models[name], device="cpu")
    parts = load_ranks(models[name], 3)
    torch.manual_seed(0)
    hidden = torch.randn(1, 7, 96)

    def outputs(model: Any) -> tuple[Tensor, Tensor]:
        layer = model.model.layers[1]
        rotary = model.model.rotary_emb(hidden, torch.arange(7)[None])
        mask = torch.full((7, 7), -torch.inf).triu(1)[None, None]
        with torch.no_grad():
            return layer.self_attn(hidden, rotary, attention_mask=mask)[0], layer.mlp(hidden)

    for found, expected in zip(zip(*map(outputs, parts), strict=True), outputs(whole), strict=True):
        torch.testing.assert_close(sum(found), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "adapter"),
    [
        ("llama biases", {"bias": "all"}),
        ("llama biases", {"use_dora": True}),
        ("llama", {"modules_to_save": ["lm_head"]}),  # tied to the embeddings, and then not any more
    ],
)
def test_ranks_take_their_slices_of_the_merged_whole(models, tmp_path, name, adapter):
    targets = ["q_proj", "o_proj", "down_proj", "up_proj"]
    lora = [save_adapter(tmp_path, models[name], target_modules=targets, **adapter)]
    whole, _ = load_model(models[name], device="cpu", lora=lora)
    assert_whole(whole, load_ranks(models[name], 2, lora=lora))
    plain, _ = load_model(models[name], device="cpu")
    changed = whole.model.layers[0].self_attn.o_proj.weight
    assert not torch.equal(changed, plain.model.layers[0].self_attn.o_proj.weight)


def test_a_model_that_cannot_be_split_so_is_refused_with_the_numbers_and_what_can_be(models):
    message = (
        r"cannot be split over 4 GPUs.*\(num_attention_heads 12, num_key_value_heads 6, "
        r"intermediate_size 60\)\. Set it to one of 1, 2, 3, 6\."
    )
    config = check_checkpoint(models["llama"])
    with pytest.raises(ConfigError, match=message):
        local_config(config, 4)
    with pytest.raises(ConfigError, match=message):
        load_model(models["llama"], device="cpu", ranks=4)
    assert config.num_attention_heads == 12, "the whole model's configuration is left as it is"


@pytest.mark.parametrize("make_config", [Olmo2Config, Phi3Config])
def test_a_family_that_is_not_split_is_refused_by_name(make_config: Any) -> None:
    config = make_config(**SIZES, pad_token_id=None)
    assert local_config(config, 1).num_attention_heads == 12
    with pytest.raises(ConfigError, match=rf"over 2 GPUs: models of type {config.model_type} .* one of 1\.$"):
        local_config(config, 2)
