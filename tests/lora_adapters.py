"""Small LoRA adapters, made, merged and run by PEFT: what flexray's merge is compared with."""

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from flexray.models.compat import dtype_argument

ATTENTION = ["q_proj", "v_proj"]


def plain_model(folder: Path) -> LlamaForCausalLM:
    """A checkpoint as transformers loads it, in float32."""
    kind = dtype_argument(torch.float32)
    return AutoModelForCausalLM.from_pretrained(folder, **kind, attn_implementation="eager").eval()


def save_adapter(folder: Path, model: Path, *, seed: int = 0, scale: float = 0.3, **config: Any) -> Path:
    """Save an adapter of a model with random numbers in all that is trained, as after training."""
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION, "task_type": "CAUSAL_LM"} | config
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # PEFT's, about tied embeddings
        torch.manual_seed(seed)
        adapted = get_peft_model(plain_model(model), LoraConfig(**copy.deepcopy(settings)))
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                if not weight.requires_grad:
                    continue
                if "lora_magnitude_vector" in name:
                    weight.mul_(1 + scale * torch.rand_like(weight))
                else:
                    weight.add_(scale * torch.randn_like(weight))
        adapted.save_pretrained(folder)
    return folder


def load_adapted(model: Path, adapter: Path) -> PeftModel:
    """The model with the adapter beside its weights, in float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(plain_model(model), adapter).eval()


def merge_by_peft(model: Path, *adapters: Path) -> dict[str, Tensor]:
    """The weights after one adapter after the other is merged, in float32."""
    merged = plain_model(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for adapter in adapters:
            merged = PeftModel.from_pretrained(merged, adapter).merge_and_unload()
    return {name: weight.detach() for name, weight in merged.state_dict().items()}


def logits_of(model: Any, ids: list[int]) -> Tensor:
    """The logits of a text, [T, V]."""
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0]
