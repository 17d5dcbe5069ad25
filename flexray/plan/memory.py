"""The memory that weights and KV pool will take, and how many answers at once that allows.

Worked out by the engine's own functions from numbers: nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from transformers import LlamaConfig

from flexray.config import RunConfig
from flexray.engine.budget import activation_bytes, budget_for, slot_bytes
from flexray.engine.desk import Row, plan_trunks
from flexray.engine.kv_pool import BLOCK_SIZE, blocks_for
from flexray.engine.weights import is_part_of_model, read_headers
from flexray.methods import Method
from flexray.plan.devices import Device
from flexray.types import Prompt

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CUDA_BYTES = 2**29
"""What CUDA and its libraries take of a GPU for a process, about."""
UNBOUNDED = 2**50  # bytes, of a GPU that nobody has named


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a question asks of the engine, by all methods: means over a sample."""

    prefill_tokens: float
    answers: float  # branches decoded
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
    answers_at_once: int
    """Decoded together; fewer where their rows are longer than the sample's mean."""
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


def engine_rows(config: RunConfig, methods: Sequence[Method], prompts: Sequence[Prompt]) -> list[list[Row]]:
    """The prompts as the engine takes them: a list for each trunk, without those that nothing grows from."""
    new = config.generation.max_new_tokens
    rows = [[Row(i, prompt, plan, new) for i, prompt in enumerate(prompts)] for plan in plan_trunks(methods)]
    return list(filter(None, ([row for row in part if row.branches] for part in rows)))


def plan_memory(
    config: RunConfig, shape: LlamaConfig, device: Device, rows: Sequence[Sequence[Row]], shard_rows: int
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
    budget = budget_for(shape, itemsize, free, config.engine)
    context = len(rows[0][0].prompt.context)
    room = (budget.max_slots - budget.least_slots(context, 0)) / BLOCK_SIZE
    pools, at_once, wanted, largest = [], [], [], 0
    for part in rows:
        needs = [row.num_slots for row in part]
        largest = max(largest, *needs)
        pools.append(budget.pool_slots(context, _stretched(needs, shard_rows)))
        branches = sum(len(row.branches) for row in part) / len(part)
        fit = room / (sum(map(blocks_for, needs)) / len(part))
        wanted.append(min(budget.max_rows, round(shard_rows * branches)))
        at_once.append(max(0, min(wanted[-1], int(fit * branches))))
    slots = slot_bytes(shape, itemsize)
    return MemoryPlan(
        dtype=dtype,
        parameters=parameters,
        weight_bytes=weights,
        kv_bytes_per_token=slots,
        activation_bytes=activation_bytes(shape, itemsize) * budget.max_prefill_tokens,
        cuda_bytes=cuda,
        least_slots=budget.least_slots(context, largest),
        most_slots=budget.max_slots,
        pool_slots=max(pools),
        pool_bytes=max(pools) * slots,
        answers_at_once=min(at_once),
        wanted_at_once=min(wanted),
    )


def plan_work(config: RunConfig, rows: Sequence[Sequence[Row]]) -> Work:
    """What the rows of a sample, as `engine_rows` makes them, ask of the engine."""
    questions = max(map(len, rows))
    answers = sum(len(row.branches) for part in rows for row in part) / questions
    return Work(
        prefill_tokens=sum(row.sample.num_tokens for part in rows for row in part) / questions,
        answers=answers,
        answer_tokens=answers * config.generation.max_new_tokens,
    )


def _stretched(needs: Sequence[int], count: int) -> list[int]:
    """As many numbers as a shard has rows, spread as those of the sample are."""
    ordered = sorted(needs)
    return [ordered[i * len(ordered) // count] for i in range(count)]
