"""How much at once: rows, tokens and slots, from the device's memory. A few sizes only, so few graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from flexray.config import EngineConfig
from flexray.engine import llama
from flexray.engine.kv_pool import BLOCK_SIZE, blocks_for
from flexray.masks.block_mask import QUERY_TILE
from flexray.types import ConfigError

MIN_BUCKET_ROWS = 8
MIN_BUCKET_TOKENS = 2 * QUERY_TILE
PREFILL_BUCKETS = 5
"""Sizes of prefill passes, from `max_prefill_tokens` down by halves."""
LEAST_POOL_SLOTS = 8192
GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Sizes of one engine. Shapes are rounded up to powers of two ("buckets")."""

    max_rows: int  # decoded at once
    rows_ahead: int  # placed before they can be decoded, so that the host's work overlaps the device's
    max_prefill_tokens: int
    max_slots: int  # of the pool; what the memory holds; 0: none
    steps_per_look: int  # decode steps before the host looks who is done

    def decode_bucket(self, rows: int) -> int:
        """Rows that a batch of `rows` is padded to."""
        return _round_up(rows, MIN_BUCKET_ROWS)

    def prefill_bucket(self, tokens: int) -> int:
        """Tokens that a pass of `tokens` is padded to."""
        return _round_up(tokens, self._least_bucket)

    def prefill_pass(self, tokens: int) -> int:
        """How many of `tokens` waiting ones the next pass takes: a full bucket, the largest there is; when
        they would fill even the smallest to less than one, all."""
        bucket = self.max_prefill_tokens
        while bucket > max(tokens, self._least_bucket):
            bucket //= 2
        return min(bucket, tokens)

    @property
    def _least_bucket(self) -> int:
        return max(MIN_BUCKET_TOKENS, self.max_prefill_tokens >> (PREFILL_BUCKETS - 1))

    def pool_slots(self, num_context: int, needs: Sequence[int]) -> int:
        """Slots of a pool for a context and rows that need this many each, of which the largest fits."""
        largest = sorted(needs, reverse=True)[: self.max_rows + self.rows_ahead]
        wanted = self.least_slots(num_context, 0) + sum(blocks_for(n) for n in largest) * BLOCK_SIZE
        return min(self.max_slots, _round_up(wanted, LEAST_POOL_SLOTS))

    def least_slots(self, num_context: int, needed: int) -> int:
        """Slots of a pool that holds the scratch block, a context and one row."""
        return (1 + blocks_for(num_context) + blocks_for(needed)) * BLOCK_SIZE

    def halved(self) -> Budget:
        """Half the rows and tokens at once."""
        return dataclasses.replace(
            self,
            max_rows=max(1, self.max_rows // 2),
            rows_ahead=self.rows_ahead // 2,
            max_prefill_tokens=max(MIN_BUCKET_TOKENS, self.max_prefill_tokens // 2),
            max_slots=min(self.max_slots, max(LEAST_POOL_SLOTS, self.max_slots // 2)),
        )


def plan_budget(model: LlamaForCausalLM, config: EngineConfig) -> Budget:
    """Sizes for a model on its device. Raises ConfigError as `check_room`."""
    device = llama.device_of(model)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    budget = budget_for(model.config, model.dtype.itemsize, free, config)
    if free is not None:
        check_room(budget, model.config, model.dtype.itemsize, free, config)
    return budget


def budget_for(shape: LlamaConfig, itemsize: int, free: int | None, config: EngineConfig) -> Budget:
    """Sizes for a model that need not be there.

    Args:
        itemsize: bytes of a number of its dtype.
        free: bytes of the GPU's memory that its weights leave; None: a CPU.
    """
    on_gpu = free is not None
    max_prefill_tokens = _round_up(
        config.max_prefill_tokens or (32768 if on_gpu else 2048), MIN_BUCKET_TOKENS
    )
    if free is not None:
        room = free * config.memory_fraction - activation_bytes(shape, itemsize) * max_prefill_tokens
        max_slots = max(0, int(room // slot_bytes(shape, itemsize)) // BLOCK_SIZE * BLOCK_SIZE)
    else:
        max_slots = 2**20
    max_rows = config.max_rows or (512 if on_gpu else 32)
    return Budget(
        max_rows=max_rows,
        rows_ahead=max_rows if on_gpu else 0,  # on a CPU the device is the host
        max_prefill_tokens=max_prefill_tokens,
        max_slots=max_slots,
        steps_per_look=4 if on_gpu else 1,
    )


def check_room(budget: Budget, shape: LlamaConfig, itemsize: int, free: int, config: EngineConfig) -> None:
    """Refuse a GPU whose memory holds no row, as each would be an error row. Arguments as for `budget_for`.

    Raises:
        ConfigError: with what there is and what takes it.
    """
    if budget.max_slots >= budget.least_slots(0, 1):
        return
    passes = activation_bytes(shape, itemsize) * budget.max_prefill_tokens
    raise ConfigError(
        f"the GPU's memory holds no row: {free / GIB:.1f} GiB are free beside the weights, of which "
        f"engine.memory_fraction allows {free * config.memory_fraction / GIB:.1f}, and prefill passes of "
        f"{budget.max_prefill_tokens} tokens take {passes / GIB:.1f}. Lower engine.max_prefill_tokens, raise "
        "engine.memory_fraction, end what else is on the GPU, or take a larger one."
    )


def slot_bytes(shape: LlamaConfig, itemsize: int) -> int:
    """Bytes of one token's K and V in all layers."""
    heads = shape.num_key_value_heads or shape.num_attention_heads
    head_dim = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    return 2 * shape.num_hidden_layers * heads * head_dim * itemsize


def activation_bytes(shape: LlamaConfig, itemsize: int) -> int:
    """Bytes of one prefilled token at its widest: MLP gate and up, their product, and the residuals."""
    return (3 * shape.intermediate_size + 8 * shape.hidden_size) * itemsize


def _round_up(count: int, unit: int) -> int:
    """The smallest `unit * 2**n` that holds `count`."""
    size = unit
    while size < count:
        size *= 2
    return size
