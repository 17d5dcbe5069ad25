"""How much at once: sequences, tokens and KV slots, from the device's memory. A few sizes only, so few
graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from flexray.config import EngineConfig
from flexray.engine.kv_cache import BLOCK_SIZE, blocks_for
from flexray.errors import ConfigError
from flexray.masks.block_masks import QUERY_TILE
from flexray.models.all_reduce import least
from flexray.models.families import kv_shape
from flexray.models.llama import Llama

if TYPE_CHECKING:  # older releases of transformers have another name for it
    from transformers import PreTrainedConfig

MIN_DECODE_BUCKET = 8
MIN_PREFILL_BUCKET = 4 * QUERY_TILE
MOST_HALVINGS = 4
"""A stream is cut into passes of `max_num_batched_tokens` and its halves, so that little of the last one is
padding; but not into smaller and smaller ones."""
LARGEST_GRAPH = 8192
"""Tokens of a pass that is a CUDA graph. Launching a larger one takes the host less time than it takes the
device."""
REQUESTS_PER_SEQUENCE = 4
"""On a GPU so many times as many requests are running as a decode batch has sequences, so that few prefill
passes are padded."""
ATTENTION_PROGRAMS = 256
"""On a GPU the attention of a decode step is split over the keys until it has so many programs, each
for one sequence and key/value head: with fewer, most of the GPU waits for the longest."""
MOST_SPLITS = 8
BLOCKS_OF_A_SPLIT = 8
"""Merging the parts takes as long as attending to so many blocks."""
APART_IN_PREFILL = 512
APART_IN_DECODE = 2**15
"""On a GPU. What attending apart saves grows with the context's length, and in decoding with the sequences
that read it; what merging costs does not."""
MIN_CACHE_SLOTS = 8192
MOST_NUMBERS = 2**31 - 1
"""Of one layer's keys on a GPU: FlexAttention does not compile for more (torch 2.11), as their places take 64
bits. Only models of very few layers have memory for so many."""
GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class SchedulerConfig:
    """Sizes of one engine. Shapes are rounded up to powers of two ("buckets")."""

    max_num_seqs: int  # sequences in one decode batch
    max_num_requests: int  # that are running, in as many decode batches as it takes
    lookahead: int  # requests that get their KV blocks early, so that the host's work overlaps the device's
    max_num_batched_tokens: int  # in one prefill pass
    max_num_slots: int  # of the KV cache; what the memory holds; 0: none
    num_scheduler_steps: int  # decode steps before the host looks which sequences have finished
    fixed: bool = False  # one size of pass, and one of decode batch: what a row's numbers are rounded by
    # tokens of a context, in decoding times sequences, from which on it is attended to apart; 0: never
    apart_in_prefill: int = 0
    apart_in_decode: int = 0
    attention_programs: int = 0  # of a decode step, that it is split over the keys for; 0: never

    def decode_bucket(self, sequences: int) -> int:
        """Sequences that a decode batch is padded to."""
        return _round_up(sequences, self.max_num_seqs if self.fixed else MIN_DECODE_BUCKET)

    def key_splits(self, bucket: int, num_kv_heads: int, blocks: int = 0) -> int:
        """Parts of its keys that a sequence of a decode batch attends to one by one: with fixed sizes, by the
        batch's size alone, of which there is one.

        Args:
            blocks: that the longest row attends to; not looked at if sizes are fixed.
        """
        most = MOST_SPLITS if self.fixed else min(MOST_SPLITS, blocks // BLOCKS_OF_A_SPLIT)
        splits = 1
        while 2 * splits <= most and 2 * splits * bucket * num_kv_heads <= self.attention_programs:
            splits *= 2
        return splits

    def prefill_bucket(self, tokens: int) -> int:
        """Tokens that a pass of `tokens` is padded to."""
        return _round_up(tokens, self.max_num_batched_tokens if self.fixed else MIN_PREFILL_BUCKET)

    def prefill_pass(self, tokens: int) -> int:
        """How many of `tokens` waiting ones the next pass takes: a full bucket, the largest that there is; or
        all, where it is not worth while to cut on."""
        bucket, least = self.max_num_batched_tokens, self.max_num_batched_tokens >> MOST_HALVINGS
        while not self.fixed and bucket > max(tokens, least, MIN_PREFILL_BUCKET):
            bucket //= 2
        return min(bucket, tokens)

    def cache_slots(self, num_context: int, needs: Sequence[int]) -> int:
        """Slots of a KV cache for a context and requests that need this many each, of which the largest
        fits."""
        largest = sorted(needs, reverse=True)[: self.max_num_requests + self.lookahead]
        wanted = self.least_slots(num_context, 0) + sum(blocks_for(n) for n in largest) * BLOCK_SIZE
        return min(self.max_num_slots, _round_up(wanted, MIN_CACHE_SLOTS))

    def least_slots(self, num_context: int, needed: int) -> int:
        """Slots of a KV cache that holds the scratch block, a context and one request."""
        return (1 + blocks_for(num_context) + blocks_for(needed)) * BLOCK_SIZE

    def room(self, num_context: int) -> int:
        """Slots that a request may have beside a context, in the largest KV cache."""
        return self.max_num_slots - self.least_slots(num_context, 0)

    def halved(self, least_slots: int) -> SchedulerConfig:
        """Half the sequences and tokens at once, in a KV cache of so many slots at least, a whole number of
        blocks."""
        slots = max(MIN_CACHE_SLOTS, least_slots, self.max_num_slots // 2 // BLOCK_SIZE * BLOCK_SIZE)
        return dataclasses.replace(
            self,
            max_num_seqs=max(1, self.max_num_seqs // 2),
            max_num_requests=max(1, self.max_num_requests // 2),
            lookahead=self.lookahead // 2,
            max_num_batched_tokens=max(MIN_PREFILL_BUCKET, self.max_num_batched_tokens // 2),
            max_num_slots=min(self.max_num_slots, slots),
        )


def plan_scheduler(model: Llama, config: EngineConfig) -> SchedulerConfig:
    """Sizes for a model on its device, the same on all its ranks. Raises ConfigError as `check_room`."""
    free = None
    if model.device.type == "cuda":
        torch.cuda.empty_cache()  # what merging and quantising the weights has freed is free for the KV cache
        free = least(torch.cuda.mem_get_info(model.device)[0], model.shape.group, model.device)
    sizes = scheduler_config_for(model.config, model.dtype.itemsize, free, config)
    if free is not None:
        check_room(sizes, model.config, model.dtype.itemsize, free, config)
        if torch.cuda.get_device_capability(model.device) < (8, 0):  # older than the kernels for that
            sizes = dataclasses.replace(sizes, apart_in_prefill=0, apart_in_decode=0)
    return sizes


def scheduler_config_for(
    shape: PreTrainedConfig, itemsize: int, free: int | None, config: EngineConfig
) -> SchedulerConfig:
    """Sizes for a model that need not be there.

    Args:
        itemsize: bytes of a number of its dtype.
        free: bytes of the GPU's memory that its weights leave; None: a CPU.
    """
    on_gpu = free is not None
    default = (8192 if on_gpu else 512) if config.deterministic else (32768 if on_gpu else 2048)
    tokens = _round_up(config.max_num_batched_tokens or default, MIN_PREFILL_BUCKET)
    if free is not None:
        room = free * config.gpu_memory_utilization - prefill_bytes(
            shape, itemsize, tokens, config, on_gpu=True
        )
        heads, head_dim = kv_shape(shape)
        slots = min(int(room // slot_bytes(shape, itemsize)), MOST_NUMBERS // (heads * head_dim))
        max_num_slots = max(0, slots // BLOCK_SIZE * BLOCK_SIZE)
    else:
        max_num_slots = 2**20
    max_num_seqs = config.max_num_seqs or (512 if on_gpu else 32)
    by_default = config.max_num_seqs is None and on_gpu
    return SchedulerConfig(
        max_num_seqs=max_num_seqs,
        max_num_requests=max_num_seqs * (REQUESTS_PER_SEQUENCE if by_default else 1),
        lookahead=max_num_seqs if on_gpu else 0,  # on a CPU the device is the host
        max_num_batched_tokens=tokens,
        max_num_slots=max_num_slots,
        num_scheduler_steps=4 if on_gpu else 1,
        fixed=config.deterministic,
        apart_in_prefill=APART_IN_PREFILL if on_gpu else 0,
        apart_in_decode=APART_IN_DECODE if on_gpu else 0,
        attention_programs=ATTENTION_PROGRAMS if on_gpu else 0,
    )


def check_room(
    sizes: SchedulerConfig, shape: PreTrainedConfig, itemsize: int, free: int, config: EngineConfig
) -> None:
    """Refuse a GPU whose memory holds no request, as each would be an error row. Arguments as for
    `scheduler_config_for`.

    Raises:
        ConfigError: with what there is and what takes it.
    """
    if sizes.max_num_slots >= sizes.least_slots(0, 1):
        return
    passes = prefill_bytes(shape, itemsize, sizes.max_num_batched_tokens, config, on_gpu=True)
    raise ConfigError(
        f"the GPU's memory holds no row: {free / GIB:.1f} GiB are free beside the weights, of which "
        f"engine.gpu_memory_utilization allows {free * config.gpu_memory_utilization / GIB:.1f}, and prefill "
        f"passes of {sizes.max_num_batched_tokens} tokens take {passes / GIB:.1f}. Lower "
        "engine.max_num_batched_tokens, raise engine.gpu_memory_utilization, end what else is on the GPU, or "
        "take a larger one."
    )


def slot_bytes(shape: PreTrainedConfig, itemsize: int) -> int:
    """Bytes of one token's K and V in all layers."""
    heads, head_dim = kv_shape(shape)
    return int(2 * shape.num_hidden_layers * heads * head_dim * itemsize)


def prefill_bytes(
    shape: PreTrainedConfig, itemsize: int, tokens: int, config: EngineConfig, *, on_gpu: bool
) -> int:
    """Bytes that passes of so many tokens take; on a GPU, with a CUDA graph of each size of pass, which has
    its memory for itself: one size if deterministic, else halving ones."""
    graphs = min(tokens, LARGEST_GRAPH) * (1 if config.deterministic else 2) if on_gpu else 0
    return activation_bytes(shape, itemsize) * (tokens + graphs)


def activation_bytes(shape: PreTrainedConfig, itemsize: int) -> int:
    """Bytes of one prefilled token at its widest: MLP gate and up, their product, and the residuals."""
    return int((3 * shape.intermediate_size + 8 * shape.hidden_size) * itemsize)


def _round_up(count: int, unit: int) -> int:
    """The smallest `unit * 2**n` that holds `count`."""
    size = unit
    while size < count:
        size *= 2
    return size
