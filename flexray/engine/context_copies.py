"""The copies of the context that `full_prompt` with continuous positions has before each paraphrase.

They are not computed: a copy has the context's values, and its keys rotated on (see flexray.masks.layout).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from flexray.engine.kv_cache import KVCache
from flexray.engine.request import Request
from flexray.engine.transfers import to_device
from flexray.models.decoder_layer import rotate
from flexray.models.llama import Llama, compiled

COPIES_AT_ONCE = 256
"""Copies written in one go, always so many by a compiled function: one graph."""


@torch.no_grad()
def copy_context(model: Llama, kv_cache: KVCache, requests: Sequence[Request], *, compiles: bool) -> None:
    """Write requests' rotated copies of the context into their slots, in all layers.

    Args:
        compiles: by a compiled function.
    """
    C = kv_cache.num_plain
    copies = [request.packed.layout.copy_slots for request in requests]
    if not C or not any(map(len, copies)):
        return
    offsets = np.concatenate(copies)
    tables = [request.block_table for request in requests if request.block_table is not None]
    slots = np.concatenate(
        [t.slots[c[:, None] + np.arange(C)] for c, t in zip(copies, tables, strict=True)]
    )  # [M, C]
    source = to_device(kv_cache.context_slots[:C], kv_cache.device)
    write = compiled(_write_copies) if compiles else _write_copies
    for start in range(0, len(offsets), COPIES_AT_ONCE):
        count = COPIES_AT_ONCE if compiles else min(COPIES_AT_ONCE, len(offsets) - start)
        part = np.minimum(np.arange(start, start + count), len(offsets) - 1)  # the last one again and again
        rotations = model.offset_rotations(to_device(offsets[part], kv_cache.device))
        target = to_device(slots[part].reshape(-1), kv_cache.device)
        for keys, values, rotation in zip(kv_cache.keys, kv_cache.values, rotations, strict=True):
            write(keys, values, source, target, *rotation)


def _write_copies(
    keys: Tensor, values: Tensor, source_C: Tensor, target_MC: Tensor, cos_M1D: Tensor, sin_M1D: Tensor
) -> None:
    """In one layer's cache, [K, P, D]."""
    rotated_MKCD = rotate(keys[:, source_C][None], cos_M1D, sin_M1D)  # as if K were the tokens, C the heads
    keys[:, target_MC] = rotated_MKCD.transpose(0, 1).flatten(1, 2)
    values[:, target_MC] = values[:, source_C].repeat(1, len(cos_M1D), 1)
