"""Models to measure: one object a shape, whose attention each part chooses for itself."""

from __future__ import annotations

import gc
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.work import SHAPES, SMOLLM2, Shape
from flexray.models.checkpoint import load_model

SMOLLM2_FOLDER = Path(__file__).resolve().parent.parent / "models" / "smollm2-135m"


class NoStops:
    """Stands for a tokenizer: names no token that would end an answer."""

    eos_token_id = None


def make_model(name: str, device: str) -> LlamaForCausalLM:
    """The model of a shape, in eval mode on its device: bfloat16 on a GPU, float32 on a CPU. No EOS."""
    torch.manual_seed(0)
    if name == SMOLLM2:
        model, _ = load_model(SMOLLM2_FOLDER, device=device)
    else:
        model = _random_model(SHAPES[name], device)
    for config in (model.config, model.generation_config):
        config.eos_token_id = None
        config.pad_token_id = 0  # `generate` wants one; no prompt is padded
    return model


def shape_config(shape: Shape) -> LlamaConfig:
    """Of a LLaMA of this shape without EOS."""
    return LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.inter,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=131072,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def _random_model(shape: Shape, device: str) -> LlamaForCausalLM:
    config = shape_config(shape)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    try:
        with torch.device(device):  # filled where it will be used: 16 GB would take minutes on the host
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def use_attention(model: LlamaForCausalLM, name: str) -> None:
    """Choose the attention that all layers use from now on (Engine patches it to its own)."""
    model.config._attn_implementation = name


def free_memory() -> None:
    """Give back to the device what the part before has dropped: the engine sizes its pool by what is free."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def forget() -> None:
    """Free memory and compiled graphs: each part starts with none, so none nears dynamo's recompile limit."""
    torch._dynamo.reset()
    free_memory()
