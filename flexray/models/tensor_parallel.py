"""What each rank of tensor parallelism holds of a model (Shoeybi et al. 2019, arXiv:1909.08053).

A rank's model is a smaller model of the same class: a share of the heads and of the MLP's width, all of the
hidden states and of the vocabulary. What its attention gives is a summand: those of all ranks add up to what
the whole model's gives; so with its MLP.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from math import gcd
from typing import TYPE_CHECKING

from flexray.errors import ConfigError
from flexray.models.families import kv_shape, splits

if TYPE_CHECKING:  # it takes seconds to import
    from transformers import LlamaConfig

ADDED_ONCE = ("o_proj.bias", "down_proj.bias")
"""Biases of what is summed over the ranks: rank 0 adds them, the others have zeros."""


def possible_ranks(config: LlamaConfig) -> list[int]:
    """Over how many GPUs a model can be split, so that each has an equal share of heads and MLP."""
    if not splits(config):
        return [1]
    most = gcd(*_shared(config).values())
    return [ranks for ranks in range(1, most + 1) if most % ranks == 0]


def local_config(config: LlamaConfig, ranks: int) -> LlamaConfig:
    """The configuration of a rank's model, a new object.

    Args:
        config: of the whole model.
        ranks: over how many GPUs it is split, at least 1.

    Raises:
        ConfigError: the model cannot be split over so many, or is of a family that cannot be split.
    """
    shared, possible = _shared(config), possible_ranks(config)
    if ranks not in possible:
        why = f"each takes an equal share of its heads and of its MLP ({_numbers(shared)})"
        if not splits(config):
            why = f"models of type {config.model_type} have norms or weights of all heads together"
        raise ConfigError(
            f"engine.tensor_parallel: {ranks}: the model cannot be split over {ranks} GPUs: {why}. "
            f"Set it to one of {', '.join(map(str, possible))}."
        )
    local = copy.deepcopy(config)
    local.head_dim = kv_shape(config)[1]
    for key, number in shared.items():
        setattr(local, key, number // ranks)
    return local


def _shared(config: LlamaConfig) -> dict[str, int]:
    return {
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": kv_shape(config)[0],
        "intermediate_size": config.intermediate_size,
    }


def _numbers(shared: dict[str, int]) -> str:
    return ", ".join(f"{key} {number}" for key, number in shared.items())


def rank_region(whole: Sequence[int], local: Sequence[int], rank: int) -> tuple[slice, ...]:
    """Where a rank's weight, of shape `local`, lies in the whole one: in a dimension in which it is smaller,
    it is the rank-th slice.

    >>> rank_region((8, 6), (8, 2), 1)
    (slice(0, 8, None), slice(2, 4, None))
    """
    starts = [0 if size == part else rank * part for size, part in zip(whole, local, strict=True)]
    return tuple(slice(start, start + part) for start, part in zip(starts, local, strict=True))
