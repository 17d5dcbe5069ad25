"""A rank's part of a random model, made on its device a layer at a time: it never holds more than its part
and one layer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from transformers import LlamaForCausalLM

from benchmarks.models import shape_config
from benchmarks.work import SHAPES
from flexray.models.tensor_parallel import local_config

DEVIATION = 0.02


class LayersOnDemand(nn.ModuleList):
    """Layers without memory. Each gets it, and random numbers, when `flexray.models.llama` comes to it, which
    merges and quantises one after the other."""

    device: torch.device
    rank: int

    def __iter__(self) -> Iterator[nn.Module]:
        for number, layer in enumerate(super().__iter__()):
            if next(layer.parameters()).is_meta:
                fill(layer, self.device, seed=1000 * (1 + self.rank) + number)
            yield layer


def make_part(name: str, rank: int, ranks: int, device: torch.device) -> LlamaForCausalLM:
    """A rank's part of a shape's model, in bfloat16 on a GPU and float32 on a CPU. What all ranks hold whole
    is equal on all."""
    config = local_config(shape_config(SHAPES[name]), ranks)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32)
    try:
        with torch.device("meta"):
            model = LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)
    layers = LayersOnDemand(list(model.model.layers))
    layers.device, layers.rank = device, rank
    model.model.layers = layers
    for module in (model.model.embed_tokens, model.model.norm, model.lm_head):
        fill(module, device, seed=0)
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)
    return model


@torch.no_grad()
def fill(module: nn.Module, device: torch.device, seed: int) -> None:
    """Give a module memory and random numbers; norms are ones."""
    source = torch.Generator(device).manual_seed(seed)
    module.to_empty(device=device)
    for weight in module.parameters():
        if weight.ndim == 1:
            weight.fill_(1.0)
        else:
            weight.normal_(0.0, DEVIATION, generator=source)
