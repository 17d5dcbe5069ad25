"""The sum over the ranks of tensor parallelism, which each of them adds to its hidden states.

A custom op: to the compiler a layer has one opaque call after `out` and one after `down`, as in vLLM, and a
CUDA graph captures what NCCL launches for it.
"""

from __future__ import annotations

import datetime
import gc
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d
from torch.distributed.distributed_c10d import Store

all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)  # before torch 2.13
TIMEOUT = datetime.timedelta(minutes=30)
"""How long a rank waits for another one, which may still be compiling kernels."""


@dataclass(frozen=True, slots=True)
class RankGroup:
    """The processes that hold a model together, each a part of every layer; they are torch's default group.

    Plain numbers, so that a compiled layer takes it as a constant.
    """

    rank: int
    ranks: int


def join_ranks(rank: int, ranks: int, store: Store, device: torch.device) -> RankGroup:
    """Join the group; waits until all have joined.

    Args:
        device: of this rank's part of the model; on a GPU sums go by NCCL, else by gloo.
    """
    on_gpu = device.type == "cuda"
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=store,
        rank=rank,
        world_size=ranks,
        timeout=TIMEOUT,
        device_id=device if on_gpu else None,  # connects at once: nothing may be connected within a graph
    )
    return RankGroup(rank, ranks)


def leave_ranks() -> None:
    """Leave the group, if there is one, together with the other ranks. NCCL waits until the graphs are gone
    that it is part of."""
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()


def abandon_ranks() -> None:
    """The same after the other ranks have died: what still waits for them is ended."""
    gc.collect()
    if dist.is_initialized():
        distributed_c10d._abort_process_group()


def all_reduce(x: Tensor, group: RankGroup | None) -> Tensor:
    """x summed over the ranks, in its place: the same bits on each. None: x is whole."""
    if group is not None:
        torch.ops.flexray.all_reduce(x, group.ranks)
    return x


def least(number: int, group: RankGroup | None, device: torch.device) -> int:
    """The least of the ranks' numbers, which all of them get."""
    if group is None:
        return number
    found = torch.tensor([number], device=device)
    dist.all_reduce(found, dist.ReduceOp.MIN)
    return int(found)


@torch.library.custom_op("flexray::all_reduce", mutates_args=("x",))
def _all_reduce(x: Tensor, ranks: int) -> None:
    """Two numbers give the same sum in either order. Of more, NCCL takes the order from where they stand in
    the tensor, so a row's sums would depend on the rows before it: here they are added in ranks' order."""
    if ranks == 2:
        dist.all_reduce(x)
        return
    share = -(-x.numel() // ranks)
    sent = torch.nn.functional.pad(x.flatten(), (0, ranks * share - x.numel()))
    got = torch.empty_like(sent)
    dist.all_to_all_single(got, sent)  # of each rank its numbers for the part that is summed here
    first, *others = got.view(ranks, share)
    total = first.float()
    for other in others:
        total = total + other
    all_gather(sent, total.to(x.dtype))
    x.copy_(sent[: x.numel()].view_as(x))


@_all_reduce.register_fake
def _(x: Tensor, ranks: int) -> None:
    return None
