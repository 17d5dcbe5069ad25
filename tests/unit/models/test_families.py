"""Models of each family, saved as they are published and loaded from the folder: the oracle's tokens."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from flexray.config import EngineConfig, GenerationConfig, MethodConfig
from flexray.engine.engine import Engine
from flexray.errors import ModelError
from flexray.models import llama
from flexray.models.checkpoint import check_checkpoint, load_model
from flexray.models.compat import dtype_argument, rope_arguments
from flexray.models.families import FAMILIES
from tests import oracles
from tests.expected import tokens
from tests.random_models import VOCAB, save_model


def llama3_rope(factor: float) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def heads(query: int, key: int, head_dim: int) -> dict[str, int]:
    return {"num_attention_heads": query, "num_key_value_heads": key, "head_dim": head_dim}


def shape(config: type, heads: dict[str, int], **kwargs: Any) -> Any:
    """A configuration with the family's heads, and little else."""
    tiny = {
        "vocab_size": VOCAB,
        "hidden_size": heads["num_attention_heads"] * 8,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "initializer_range": 0.3,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "bos_token_id": None,
        "pad_token_id": None,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    }
    return config(**(tiny | heads | kwargs))


TIED = {"tie_word_embeddings": True}
GRANITE = {
    "embedding_multiplier": 12.0,
    "attention_multiplier": 0.015625,
    "residual_multiplier": 0.22,
    "logits_scaling": 8.0,
}
PUBLISHED = {
    "Llama-3.2-1B": shape(LlamaConfig, heads(32, 8, 64), **rope_arguments(llama3_rope(32.0)), **TIED),
    "Llama-3.2-3B": shape(LlamaConfig, heads(24, 8, 128), **rope_arguments(llama3_rope(32.0)), **TIED),
    "Llama-3.1-8B": shape(LlamaConfig, heads(32, 8, 128), **rope_arguments(llama3_rope(8.0))),
    "Llama-2-7B": shape(LlamaConfig, heads(32, 32, 128)),
    "TinyLlama-1.1B": shape(LlamaConfig, heads(32, 4, 64)),
    "SmolLM2-135M": shape(LlamaConfig, heads(9, 3, 64), **TIED),
    "SmolLM2-360M": shape(LlamaConfig, heads(15, 5, 64), **TIED),
    "SmolLM2-1.7B": shape(LlamaConfig, heads(32, 32, 64), **TIED),
    "biases": shape(LlamaConfig, heads(6, 2, 64), attention_bias=True, mlp_bias=True),
    "Mistral-7B-v0.3": shape(MistralConfig, heads(32, 8, 128), sliding_window=None),
    "Qwen2.5-0.5B": shape(Qwen2Config, heads(14, 2, 64), **rope_arguments({"rope_theta": 1e6}), **TIED),
    "Qwen2.5-7B": shape(
        Qwen2Config,
        heads(28, 4, 128),
        **rope_arguments(
            {
                "rope_type": "yarn",
                "rope_theta": 1e6,
                "factor": 4.0,
                "original_max_position_embeddings": 32768,
            }
        ),
    ),
    "Qwen3-0.6B": shape(Qwen3Config, heads(16, 8, 128), **rope_arguments({"rope_theta": 1e6}), **TIED),
    "Qwen3-8B": shape(Qwen3Config, heads(32, 8, 128), **rope_arguments({"rope_theta": 1e6})),
    "SmolLM3-3B": shape(SmolLM3Config, heads(16, 4, 128), num_hidden_layers=4, **TIED),
    "Granite-3.3-2B": shape(GraniteConfig, heads(32, 8, 64), **GRANITE, **TIED),
    "OLMo-2-1B": shape(Olmo2Config, heads(16, 16, 128)),
    "Phi-4": shape(Phi3Config, heads(40, 10, 128)),
}
MODES = [("shared_context", "restart"), ("full_prompt", "continuous")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Saves a model of a name, once."""
    folders: dict[str, Path] = {}

    def saved(name: str) -> Path:
        if name not in folders:
            folders[name] = save_model(tmp_path_factory.mktemp("model") / name, PUBLISHED[name])
        return folders[name]

    return saved


def engine_of(folder: Path, layout: str, positions: str, backend: str) -> Engine:
    model, tokenizer = load_model(folder, dtype="float32", device="cpu")
    methods = [MethodConfig(layout=layout, positions=positions)]
    config = EngineConfig(backend=backend, strict=True, max_num_seqs=8)
    return Engine(model, tokenizer, methods, GenerationConfig(max_new_tokens=5), config)


def plain_model(folder: Path) -> Any:
    """As transformers alone loads it: nothing of flexray's."""
    return AutoModelForCausalLM.from_pretrained(
        folder, **dtype_argument(torch.float32), attn_implementation="eager"
    ).eval()


@pytest.mark.parametrize(
    ("name", "backend"),
    [*((name, "sdpa") for name in PUBLISHED), ("Qwen3-0.6B", "flex")],
)
def test_a_model_of_each_family_generates_what_the_oracle_does(make_prompts, saved, name, backend):
    prompts = make_prompts(3)
    plain = plain_model(saved(name))
    for layout, positions in MODES[:1] if backend == "flex" else MODES:  # each is compiled for itself
        engine = engine_of(saved(name), layout, positions, backend)
        generations = engine.generate(prompts)
        for prompt, found in zip(prompts, tokens(generations), strict=True):
            oracle = oracles.greedy_along(plain, prompt, found, layout=layout, positions=positions)
            assert found == tuple(oracle.token_ids)
            assert len(found) == 5 or found[-1] in engine.stopping.stop_ids()
        assert {g.backend_used for ((g,),) in generations} == {backend}
    assert len(set(tokens(generations))) > 1, "the answers depend on the prompt"


@pytest.mark.parametrize(
    "name",
    ["Llama-3.1-8B", "Mistral-7B-v0.3", "Qwen2.5-7B", "Qwen3-8B", "SmolLM3-3B", "OLMo-2-1B"],
)
def test_the_oracle_on_one_paraphrase_is_what_transformers_generates(make_prompts, saved, name):
    plain = plain_model(saved(name))
    for prompt in make_prompts(2):
        prompt = type(prompt)(prompt.context, prompt.segments[:1], prompt.answer_prefix)
        ids = torch.tensor([[*prompt.context, *prompt.segments[0], *prompt.answer_prefix]])
        out = plain.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=2, pad_token_id=0)
        expected = out[0, ids.shape[1] :].tolist()
        assert oracles.answer(plain, prompt, max_new_tokens=5, stop_ids={2}).token_ids == expected


def test_what_tells_the_families_apart_is_in_the_models(saved):
    def weights(name: str) -> str:
        return " ".join(plain_model(saved(name)).state_dict())

    assert "q_norm.weight" in weights("Qwen3-0.6B")
    assert "q_proj.bias" in weights("Qwen2.5-0.5B")
    assert "o_proj.bias" not in weights("Qwen2.5-0.5B")
    assert "o_proj.bias" in weights("biases")
    assert "gate_proj.bias" in weights("biases")
    assert "gate_up_proj.weight" in weights("Phi-4")
    assert "input_layernorm" not in weights("OLMo-2-1B")
    assert llama.patch(plain_model(saved("SmolLM3-3B"))).rotated == [True, True, True, False]
    for name in ("Llama-3.2-1B", "Llama-3.1-8B"):
        with safe_open(saved(name) / "model.safetensors", framework="pt") as file:
            assert ("lm_head.weight" in file.keys()) == (name == "Llama-3.1-8B")  # noqa: SIM118
            assert file.get_tensor("model.norm.weight").dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["SmolLM2-135M", "biases"])
def test_a_model_in_many_files_is_the_same_model(make_prompts, saved, tmp_path, name):
    folder = save_model(tmp_path / "sharded", PUBLISHED[name], shard_size="100KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    assert not (folder / "model.safetensors").exists()
    prompts = make_prompts(3)
    found = [
        tokens(engine_of(f, "shared_context", "restart", "sdpa").generate(prompts))
        for f in (folder, saved(name))
    ]
    assert found[0] == found[1]


def test_the_loaded_dtype_is_the_one_asked_for_and_float32_by_default_on_the_cpu(saved):
    folder = saved("Llama-3.2-1B")
    for asked, dtype in {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}.items():
        model, _ = load_model(folder, dtype=asked, device="cpu")
        assert {weight.dtype for weight in model.parameters()} == {dtype}
        assert model.lm_head.weight is model.model.embed_tokens.weight


def test_the_classes_that_are_loaded_are_those_that_the_loop_is_for():
    assert {f"{prefix}ForCausalLM" for prefix in FAMILIES.values()} == {
        kind.__name__ for kind in llama.LlamaLike.__args__
    }


def folder_of(saved, tmp_path: Path, config: Any) -> Path:
    """A good folder with another model's configuration."""
    folder = Path(shutil.copytree(saved("SmolLM2-135M"), tmp_path / "model"))
    config.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (MistralConfig(), r"sliding-window attention.*set sliding_window to null and max_position.* to 4096"),
        (
            Qwen2Config(use_sliding_window=True, num_hidden_layers=4, max_window_layers=2),
            r"layers of type sliding_attention.*use_sliding_window to false.*max_position_embeddings to 4096",
        ),
        (
            Qwen3Config(num_hidden_layers=2, layer_types=["full_attention", "sliding_attention"]),
            "layers of type sliding_attention",
        ),
        (
            LlamaConfig(**rope_arguments({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})),
            "'dynamic'",
        ),
        (
            GemmaConfig(),
            r"'gemma' \(it scales its embeddings.*llama, mistral, .* granite, olmo2\.",
        ),
        (MixtralConfig(), r"'mixtral' \(its layers are mixtures of experts\)"),
    ],
    ids=["mistral", "qwen2", "qwen3", "dynamic rope", "gemma", "mixtral"],
)
def test_a_model_that_the_loop_is_not_right_for_is_refused_with_the_reason(saved, tmp_path, config, why):
    with pytest.raises(ModelError, match=why):
        check_checkpoint(folder_of(saved, tmp_path, config))


@pytest.mark.parametrize(
    ("model_type", "why"),
    [
        ("gemma3_text", "scales its embeddings"),
        ("qwen2_moe", "mixtures of experts"),
        ("qwen3_moe", "mixtures of experts"),
        ("granitemoe", "mixtures of experts"),
        ("olmo3", "attend to a window only"),
        ("llama4", "mixtures of experts"),
        ("mllama", "attends to pictures"),
        ("gpt2", "LLaMA and models with its layers"),
        (["llama"], "LLaMA and models with its layers"),
    ],
)
def test_other_models_are_refused_by_their_name(saved, tmp_path, model_type, why):
    folder = Path(shutil.copytree(saved("SmolLM2-135M"), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
    with pytest.raises(ModelError, match=why):
        check_checkpoint(folder)


def test_a_window_that_is_switched_off_is_no_window(saved, tmp_path):
    config = shape(Qwen2Config, heads(14, 2, 64), use_sliding_window=False, sliding_window=64, **TIED)
    assert check_checkpoint(save_model(tmp_path, config)).sliding_window is None


def test_biases_that_the_configuration_does_not_know_are_not_left_out_silently(saved, tmp_path):
    folder = Path(shutil.copytree(saved("biases"), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attention_bias": False}))
    with pytest.raises(
        ModelError, match=r"8 weight\(s\) of the files have no place .*self_attn\.k_proj\.bias"
    ):
        load_model(folder, device="cpu")


def test_the_rope_frequencies_that_old_checkpoints_have_in_each_layer_are_no_unknown_weights(saved, tmp_path):
    folder = Path(shutil.copytree(saved("SmolLM2-135M"), tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    load_model(folder, device="cpu")


def test_the_loop_is_not_run_over_a_model_of_another_family():
    config = shape(GemmaConfig, heads(2, 1, 64))
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(TypeError, match="GemmaForCausalLM: the loop over the layers is not right for it"):
        llama.patch(model)
