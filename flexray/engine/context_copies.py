"""The copies of the context that `full_prompt` with continuous positions has before each paraphrase.

They are not computed: a copy has the context's values, and its keys rotated on (see flexray.masks.layout).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from flexray.engine.kv_cache import KVCache, to_device
from flexray.engine.request import Request
from flexray.models.llama import Llama

COPIES_AT_ONCE = 256
"""Copies written in one go; bounds the memory this takes."""


@torch.no_grad()
def copy_context(model: Llama, kv_cache: KVCache, requests: Sequence[Request]) -> None:
    """Write requests' rotated copies of the context into their slots, in all layers."""
    C = len(kv_cache.context_slots)
    copies = [request.packed.layout.copy_slots for request in requests]
    if not C or not any(map(len, copies)):
        return
    offsets = np.concatenate(copies)
    tables = [request.block_table for request in requests if request.block_table is not None]
    slots = np.concatenate(
        [t.slots[(c[:, None] + np.arange(C)).reshape(-1)] for c, t in zip(copies, tables, strict=True)]
    )
    source = to_device(kv_cache.context_slots, kv_cache.device)
    for start in range(0, len(offsets), COPIES_AT_ONCE):
        part = slice(start, start + COPIES_AT_ONCE)
        offsets_M = to_device(offsets[part], kv_cache.device)
        target = to_device(slots[part.start * C : part.stop * C], kv_cache.device)
        for keys, values in zip(kv_cache.keys, kv_cache.values, strict=True):
            rotated_MKCD = model.rotate_keys(keys[:, source], offsets_M)
            keys[:, target] = rotated_MKCD.transpose(0, 1).flatten(1, 2)
            values[:, target] = values[:, source].repeat(1, len(offsets_M), 1)
