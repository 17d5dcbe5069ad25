"""The memory that weights and KV cache will take, how many questions fit at once, and how many cards hold the
model.

The engine's own functions compute it from sizes; nothing is loaded.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

from transformers import LlamaConfig

from flexray.config import RunConfig
from flexray.engine.candidates import too_many
from flexray.engine.kv_cache import BLOCK_SIZE, blocks_for, context_size
from flexray.engine.request import Request, group_by_prefix
from flexray.engine.scheduler_config import prefill_bytes, scheduler_config_for, slot_bytes
from flexray.methods import Method
from flexray.models.checkpoint import resolve_dtype
from flexray.models.hub import model_folder
from flexray.models.lora import check_adapters
from flexray.models.tensor_parallel import local_config, possible_ranks
from flexray.models.weights import is_part_of_model, read_weights
from flexray.preflight.plan.devices import Device
from flexray.prompts.prompt import Prompt

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CUDA_BYTES = 2**29
"""What CUDA and its libraries take of a GPU's memory for a process, about."""
UNBOUNDED = 2**50  # bytes, for a GPU of unknown memory
MOST_CARDS = 16  # of one node
QUANTIZATIONS: tuple[Literal["fp8"] | None, ...] = (None, "fp8")
SPLIT = re.compile(r"[.](?:(?:q|k|v|gate|up)_proj[.](?:weight|bias)|(?:o|down)_proj[.]weight)$")
"""Names of weights that the ranks of tensor parallelism share out; each has all others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The engine's work for a question, by all methods: means over a sample."""

    prefill_tokens: float
    answers: float  # sequences decoded
    answer_tokens: float  # at most


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """Bytes on the device, and the batch sizes that follow from them."""

    device_bytes: int | None  # the device's memory; None: not known
    dtype: str
    quantization: Literal["fp8"] | None
    parameters: int  # of the whole model
    ranks: int  # that hold the model together, `engine.tensor_parallel`: all bytes are those of each
    weight_bytes: int
    loading_bytes: int  # of the weights before they are quantised
    kv_bytes_per_token: int
    activation_bytes: int  # for the largest prefill pass, and on a GPU the CUDA graphs of passes
    cuda_bytes: int  # for CUDA itself, about; 0 on a CPU
    least_slots: int  # of a KV cache that holds the context and the largest row of the sample
    most_slots: int  # of the largest KV cache that fits beside the weights
    cache_slots: int  # of the KV cache that a shard will have
    cache_bytes: int
    questions_at_once: int  # questions in a batch; fewer if they are longer than the sample's mean
    wanted_at_once: int  # the same with unlimited memory

    @property
    def needed(self) -> int:
        """Bytes in all."""
        return self.weight_bytes + self.cuda_bytes + self.activation_bytes + self.cache_bytes

    @property
    def fits(self) -> bool | None:
        """Weights, and a KV cache of one row. None: the memory is not known."""
        if self.device_bytes is None:
            return None
        most = max(self.loading_bytes, self.weight_bytes)
        return most < self.device_bytes and self.questions_at_once > 0

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return dataclasses.asdict(self) | {"needed": self.needed, "fits": self.fits}


def count_parameters(path: str | Path, lora: Sequence[str] = ()) -> int:
    """The parameters of a checked checkpoint with adapters merged, counted by the headers of its files:
    those of quantised weights, too, which are dequantised when they are loaded."""
    sizes = [prod(shape) for name, shape in _shapes(path).items() if is_part_of_model(name)]
    return sum(sizes) + check_adapters(path, lora).more_parameters


def _shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Of each tensor."""
    return {name: tuple(weight.shape) for name, weight in read_weights(model_folder(path)).items()}


def engine_rows(
    config: RunConfig, methods: Sequence[Method], prompts: Sequence[Prompt]
) -> list[list[Request]]:
    """The prompts as requests of the engine: a list for each shared prefix, without requests that it refuses:
    of no sequences, or of too many."""
    new = config.generation.max_new_tokens
    rows = [
        [Request(i, prompt, plan, new) for i, prompt in enumerate(prompts)]
        for plan in group_by_prefix(methods, share_prefixes=config.engine.share_prefixes)
    ]
    asked = [[row for row in part if row.num_sequences and not too_many(row.num_sequences)] for part in rows]
    return list(filter(None, asked))


def plan_memory(
    config: RunConfig, shape: LlamaConfig, device: Device, rows: Sequence[Sequence[Request]], shard_rows: int
) -> MemoryPlan:
    """The memory and batch sizes of a run.

    Args:
        shape: the model's configuration.
        rows: of a sample, as `engine_rows` returns them; not empty.
        shard_rows: rows of the largest shard.
    """
    dtype = resolve_dtype(config.model.dtype, on_gpu=device.is_gpu)
    itemsize = ITEM_BYTES[dtype]
    ranks = config.engine.tensor_parallel
    shape = local_config(shape, ranks)
    parameters = count_parameters(config.model.path, config.model.lora)
    shapes = _shapes(config.model.path)
    split = sum(prod(shape) for name, shape in shapes.items() if SPLIT.search(name))
    loading = weights = (parameters - split + split // ranks) * itemsize
    if config.model.quantization is not None:  # of linear layers; a CPU holds their numbers as float32
        layers = [shape for name, shape in shapes.items() if name.startswith("model.layers.")]
        linear = sum(prod(shape) for shape in layers if len(shape) == 2)
        weights += linear // ranks * ((1 if device.is_gpu else 4) - itemsize)
    cuda = CUDA_BYTES if device.is_gpu else 0
    free = None
    if device.is_gpu:
        free = UNBOUNDED if device.memory is None else device.memory - weights - cuda
    sizes = scheduler_config_for(shape, itemsize, free, config.engine)
    context = context_size(rows[0][0].context)
    room = (sizes.max_num_slots - sizes.least_slots(context, 0)) / BLOCK_SIZE
    needs = [[row.num_slots for row in part] for part in rows]
    cache_slots = max(sizes.cache_slots(context, _stretched(part, shard_rows)) for part in needs)
    mean_blocks = max(sum(map(blocks_for, part)) / len(part) for part in needs)
    wanted = min(sizes.max_num_requests, shard_rows)
    token_bytes = slot_bytes(shape, itemsize)
    return MemoryPlan(
        device_bytes=device.memory,
        dtype=dtype,
        quantization=config.model.quantization,
        parameters=parameters,
        ranks=ranks,
        weight_bytes=weights,
        loading_bytes=loading,
        kv_bytes_per_token=token_bytes,
        activation_bytes=prefill_bytes(
            shape, itemsize, sizes.max_num_batched_tokens, config.engine, on_gpu=device.is_gpu
        ),
        cuda_bytes=cuda,
        least_slots=sizes.least_slots(context, max(map(max, needs))),
        most_slots=sizes.max_num_slots,
        cache_slots=cache_slots,
        cache_bytes=cache_slots * token_bytes,
        questions_at_once=max(0, min(wanted, int(room / mean_blocks))),
        wanted_at_once=wanted,
    )


def plan_work(config: RunConfig, rows: Sequence[Sequence[Request]]) -> Work:
    """The engine's work for the rows of a sample, as `engine_rows` returns them."""
    questions = max(map(len, rows))
    sequences = [sequence for part in rows for row in part for sequence in row.sequences]
    new = config.generation.max_new_tokens
    return Work(
        prefill_tokens=sum(row.packed.num_tokens for part in rows for row in part) / questions,
        answers=len(sequences) / questions,
        answer_tokens=sum(len(sequence.forced) or new for sequence in sequences) / questions,
    )


def plan_cards(
    config: RunConfig, shape: LlamaConfig, device: Device, rows: Sequence[Sequence[Request]], shard_rows: int
) -> tuple[MemoryPlan, ...]:
    """The memory of each card, for each number of cards that divides the model, by quantisation; () on a CPU,
    whose processes share their memory. Arguments as of `plan_memory`."""
    if not device.is_gpu:
        return ()
    found = []
    for quantization in QUANTIZATIONS:
        model = config.model.model_copy(update={"quantization": quantization})
        for ranks in [n for n in possible_ranks(shape) if n <= MOST_CARDS]:
            engine = config.engine.model_copy(update={"tensor_parallel": ranks})
            asked = config.model_copy(update={"model": model, "engine": engine})
            found.append(plan_memory(asked, shape, device, rows, shard_rows))
    return tuple(found)


def least_cards(cards: Sequence[MemoryPlan], quantization: str | None) -> int | None:
    """The least `engine.tensor_parallel` whose cards hold the model; None: none does, or it is not known."""
    return min(
        (card.ranks for card in cards if card.fits and card.quantization == quantization), default=None
    )


def _stretched(needs: Sequence[int], count: int) -> list[int]:
    """`count` numbers, distributed as those of the sample."""
    ordered = sorted(needs)
    return [ordered[i * len(ordered) // count] for i in range(count)]
