"""The memory that weights and KV pool will take, and how many questions at once that allows.

Worked out by the engine's own functions from numbers: nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from transformers import LlamaConfig

from flexray.config import RunConfig
from flexray.engine.kv_cache import BLOCK_SIZE, blocks_for
from flexray.engine.request import Request, group_by_prefix
from flexray.engine.scheduler_config import activation_bytes, scheduler_config_for, slot_bytes
from flexray.methods import Method
from flexray.models.weights import is_part_of_model, read_headers
from flexray.preflight.plan.devices import Device
from flexray.prompts.prompt import Prompt

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CUDA_BYTES = 2**29
"""What CUDA and its libraries take of a GPU for a process, about."""
UNBOUNDED = 2**50  # bytes, of a GPU that nobody has named


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a question asks of the engine, by all methods: means over a sample."""

    prefill_tokens: float
    answers: float  # sequences decoded
    answer_tokens: float  # at most


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """Bytes on the device, and the sizes of the engine that follow."""

    dtype: str
    parameters: int
    weight_bytes: int
    kv_bytes_per_token: int
    activation_bytes: int
    """Of the largest prefill pass."""
    cuda_bytes: int
    """Of CUDA itself, about; 0 on a CPU."""
    least_slots: int
    """Of a pool that holds the context and the largest row of the sample."""
    most_slots: int
    """Of a pool beside the weights."""
    pool_slots: int
    """Of the pool that a shard will have."""
    pool_bytes: int
    questions_at_once: int
    """Worked on together; fewer where they are longer than the sample's mean."""
    wanted_at_once: int
    """The same if memory were no limit."""

    @property
    def needed(self) -> int:
        """Bytes of all of it."""
        return self.weight_bytes + self.cuda_bytes + self.activation_bytes + self.pool_bytes


def dtype_of(config: RunConfig, device: Device) -> str:
    """The dtype that the model will be loaded in."""
    if config.model.dtype != "auto":
        return config.model.dtype
    return "bfloat16" if device.is_gpu else "float32"


def count_parameters(folder: str | Path) -> int:
    """Numbers in a checked checkpoint's weights, from the headers of its files."""
    headers = read_headers(Path(folder))
    return sum(prod(header.shape) for name, header in headers.items() if is_part_of_model(name))


def engine_rows(
    config: RunConfig, methods: Sequence[Method], prompts: Sequence[Prompt]
) -> list[list[Request]]:
    """The prompts as the engine takes them: a list for each shared prefix, without those that nothing grows
    from."""
    new = config.generation.max_new_tokens
    rows = [
        [Request(i, prompt, plan, new) for i, prompt in enumerate(prompts)]
        for plan in group_by_prefix(methods, share_prefixes=config.engine.share_prefixes)
    ]
    return list(filter(None, ([row for row in part if row.sequences] for part in rows)))


def plan_memory(
    config: RunConfig, shape: LlamaConfig, device: Device, rows: Sequence[Sequence[Request]], shard_rows: int
) -> MemoryPlan:
    """Sizes for a run.

    Args:
        shape: the model's configuration.
        rows: a sample of them, as `engine_rows` makes them; not empty.
        shard_rows: rows that are answered together.
    """
    dtype = dtype_of(config, device)
    itemsize = ITEM_BYTES[dtype]
    parameters = count_parameters(config.model.path)
    weights = parameters * itemsize
    cuda = CUDA_BYTES if device.is_gpu else 0
    free = None
    if device.is_gpu:
        free = UNBOUNDED if device.memory is None else device.memory - weights - cuda
    sizes = scheduler_config_for(shape, itemsize, free, config.engine)
    context = len(rows[0][0].context)
    room = (sizes.max_num_slots - sizes.least_slots(context, 0)) / BLOCK_SIZE
    pools, at_once, wanted, largest = [], [], [], 0
    for part in rows:
        needs = [row.num_slots for row in part]
        largest = max(largest, *needs)
        pools.append(sizes.cache_slots(context, _stretched(needs, shard_rows)))
        fit = room / (sum(map(blocks_for, needs)) / len(part))
        wanted.append(min(sizes.max_num_seqs, shard_rows))
        at_once.append(max(0, min(wanted[-1], int(fit))))
    slots = slot_bytes(shape, itemsize)
    return MemoryPlan(
        dtype=dtype,
        parameters=parameters,
        weight_bytes=weights,
        kv_bytes_per_token=slots,
        activation_bytes=activation_bytes(shape, itemsize) * sizes.max_num_batched_tokens,
        cuda_bytes=cuda,
        least_slots=sizes.least_slots(context, largest),
        most_slots=sizes.max_num_slots,
        pool_slots=max(pools),
        pool_bytes=max(pools) * slots,
        questions_at_once=min(at_once),
        wanted_at_once=min(wanted),
    )


def plan_work(config: RunConfig, rows: Sequence[Sequence[Request]]) -> Work:
    """What the rows of a sample, as `engine_rows` makes them, ask of the engine."""
    questions = max(map(len, rows))
    answers = sum(len(row.sequences) for part in rows for row in part) / questions
    return Work(
        prefill_tokens=sum(row.packed.num_tokens for part in rows for row in part) / questions,
        answers=answers,
        answer_tokens=answers * config.generation.max_new_tokens,
    )


def _stretched(needs: Sequence[int], count: int) -> list[int]:
    """As many numbers as a shard has rows, spread as those of the sample are."""
    ordered = sorted(needs)
    return [ordered[i * len(ordered) // count] for i in range(count)]
