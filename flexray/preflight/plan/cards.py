"""How many cards a model needs: the memory of each, if so many hold it together, by quantisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import LlamaConfig

from flexray.config import RunConfig
from flexray.engine.request import Request
from flexray.models.tensor_parallel import possible_ranks
from flexray.preflight.plan.devices import Device
from flexray.preflight.plan.memory import plan_memory

MOST_CARDS = 16  # of one node
QUANTIZATIONS: tuple[Literal["fp8"] | None, ...] = (None, "fp8")


@dataclass(frozen=True, kw_only=True, slots=True)
class CardPlan:
    """The memory of each card at one `engine.tensor_parallel` and one quantisation, in bytes."""

    numbers: str
    """The dtype, or the quantisation if there is one."""
    quantization: Literal["fp8"] | None
    tensor_parallel: int
    weight_bytes: int
    needed_bytes: int
    """With a shard's KV cache, prefill passes and CUDA."""
    most_slots: int | None
    """Of the largest KV cache that fits; None: the memory is not known."""
    fits: bool | None
    """Weights, and a KV cache of one row. None: the memory is not known."""


def plan_cards(
    config: RunConfig, shape: LlamaConfig, device: Device, rows: Sequence[Sequence[Request]], shard_rows: int
) -> tuple[CardPlan, ...]:
    """Each number of cards that divides the model, by quantisation; () on a CPU, whose processes share their
    memory. Arguments as of `plan_memory`."""
    if not device.is_gpu:
        return ()
    found = []
    for quantization in QUANTIZATIONS:
        model = config.model.model_copy(update={"quantization": quantization})
        for ranks in [n for n in possible_ranks(shape) if n <= MOST_CARDS]:
            engine = config.engine.model_copy(update={"tensor_parallel": ranks})
            asked = config.model_copy(update={"model": model, "engine": engine})
            memory = plan_memory(asked, shape, device, rows, shard_rows)
            known = device.memory is not None
            most = max(memory.loading_bytes, memory.weight_bytes)
            found.append(
                CardPlan(
                    numbers=quantization or memory.dtype,
                    quantization=quantization,
                    tensor_parallel=ranks,
                    weight_bytes=memory.weight_bytes,
                    needed_bytes=memory.needed,
                    most_slots=memory.most_slots if known else None,
                    fits=most < (device.memory or 0) and memory.questions_at_once > 0 if known else None,
                )
            )
    return tuple(found)


def least_cards(cards: Sequence[CardPlan], quantization: str | None) -> int | None:
    """The least `engine.tensor_parallel` whose cards hold the model; None: none does, or it is not known."""
    fitting = [card.tensor_parallel for card in cards if card.fits and card.quantization == quantization]
    return min(fitting, default=None)
