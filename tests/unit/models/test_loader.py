"""What is loaded is what transformers' own `from_pretrained` loads, and the host never holds all of it."""

from __future__ import annotations

import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from flexray.models import loader
from flexray.models.checkpoint import load_model
from flexray.models.compat import dtype_argument, rope_arguments
from tests.random_models import save_model

SIZES: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32768}
CONFIGS = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=False, **rope_arguments(LLAMA3)),
    "llama tied": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "llama biases": LlamaConfig(**SIZES, tie_word_embeddings=False, attention_bias=True, mlp_bias=True),
    "mistral": MistralConfig(**SIZES, tie_word_embeddings=False, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=False, **rope_arguments(YARN)),
    "qwen2 tied": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3 tied": Qwen3Config(**SIZES, tie_word_embeddings=True),
    "smollm3 tied": SmolLM3Config(
        **SIZES, tie_word_embeddings=True, no_rope_layers=[1, 0, 1], pad_token_id=None, bos_token_id=None
    ),
    "granite": GraniteConfig(**SIZES, tie_word_embeddings=False, embedding_multiplier=3.0),
    "olmo2": Olmo2Config(**SIZES, pad_token_id=None),
    "phi3": Phi3Config(**SIZES, pad_token_id=None),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, torch.float32) for name in CONFIGS), ("llama", torch.bfloat16), ("qwen2", torch.bfloat16)],
)
def test_a_loaded_model_is_the_one_that_transformers_loads(tmp_path, name, dtype):
    folder = save_model(tmp_path / "model", CONFIGS[name], shard_size="50KB")
    expected = AutoModelForCausalLM.from_pretrained(
        folder,
        **dtype_argument(dtype),
        attn_implementation="eager",
        generation_config=GenerationConfig(eos_token_id=[2]),
    ).eval()
    found, _ = load_model(folder, dtype=dtype, device="cpu")
    assert type(found) is type(expected)
    assert found.config.tie_word_embeddings == name.endswith("tied")
    assert (found.lm_head.weight is found.model.embed_tokens.weight) == name.endswith("tied")
    ours, theirs = ({**model.state_dict(), **dict(model.named_buffers())} for model in (found, expected))
    assert ours.keys() == theirs.keys()
    assert "model.rotary_emb.inv_freq" in ours
    for key, tensor in ours.items():
        assert (tensor.dtype, tensor.device) == (theirs[key].dtype, theirs[key].device), key
        assert torch.equal(tensor, theirs[key]), key
    assert found.dtype == expected.dtype == dtype
    assert not any(module.training for module in found.modules())
    assert found.generation_config.eos_token_id == expected.generation_config.eos_token_id
    ids = torch.arange(40, 60)[None]
    with torch.no_grad():
        assert torch.equal(found(ids).logits, expected(ids).logits)


class Held:
    """Counts the weights that were read and are still held."""

    def __init__(self) -> None:
        self.now = self.most = self.all = 0
        self._lock = threading.Lock()

    def add(self, tensor: Tensor) -> Tensor:
        with self._lock:
            self.now, self.all = self.now + 1, self.all + 1
            self.most = max(self.most, self.now)
        weakref.finalize(tensor, self._drop)
        return tensor

    def _drop(self) -> None:
        with self._lock:
            self.now -= 1


def test_no_more_weights_are_held_at_once_than_threads_read(tmp_path, monkeypatch):
    folder = save_model(tmp_path, LlamaConfig(**SIZES | {"num_hidden_layers": 12}), shard_size="50KB")
    held, read = Held(), loader.WeightReader.read
    monkeypatch.setattr(loader.WeightReader, "read", lambda *args: held.add(read(*args)))
    load_model(folder, device="cpu")
    assert held.all == 12 * 9 + 3
    assert 1 <= held.most <= loader.THREADS
    assert held.now == 0


def test_the_model_has_no_memory_before_its_weights_have(tmp_path, monkeypatch):
    folder = save_model(tmp_path, LlamaConfig(**SIZES, tie_word_embeddings=False))
    made: list[Any] = []
    allocate = loader._allocate

    def look(model: Any, *args: Any) -> Tensor:
        if not made:
            made.append({tensor.device.type for tensor in [*model.parameters(), *model.buffers()]})
        return allocate(model, *args)

    monkeypatch.setattr(loader, "_allocate", look)
    load_model(folder, device="cpu")
    assert made == [{"meta"}]


def test_a_fault_while_a_weight_is_read_is_raised(tmp_path, monkeypatch):
    folder = save_model(tmp_path, LlamaConfig(**SIZES))

    def fail(*_: Any) -> Path:
        raise OSError("the disk is gone")

    monkeypatch.setattr(loader.WeightReader, "read", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        load_model(folder, device="cpu")
