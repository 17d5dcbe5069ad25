"""What the bits of an answer rest on beside its row: how products are rounded.

Kernels add up in different orders, and they are chosen by the sizes of a product. So a deterministic engine
has one size of pass and one of decode batch (`SchedulerConfig.fixed`), and nothing else in it may add up
over several rows. What is left is cuBLAS, which splits a product over its workspace where it has some, and
the compiler, which tries several kernels and takes the fastest. The ranks of tensor parallelism add up in
their order (`flexray.models.all_reduce`); another number of them rounds otherwise.
"""

from __future__ import annotations

import os

import torch

from flexray.engine.scheduler_config import SchedulerConfig

ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":16:8", "CUBLASLT_WORKSPACE_SIZE": "1"}
"""Read by torch at a process's first product on a GPU."""


def set_rounding(device: torch.device) -> None:
    """Make the products of this process round in one way. It does so whether or not the engine is
    deterministic: split products are slower for few rows, too, and a process can not change its mind."""
    if device.type != "cuda":
        return
    os.environ.update(ENVIRONMENT)
    torch.backends.cuda.preferred_blas_library("cublaslt")
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    from torch._inductor import config as inductor  # takes a second to import, which CPUs need not wait

    inductor.deterministic = True  # the order of a sum is not chosen by what was faster on this node


def describe_rounding(
    device: torch.device, sizes: SchedulerConfig, *, share_prefixes: bool, ranks: int, key_splits: int
) -> dict[str, str | int]:
    """What the bits of a deterministic engine's answers rest on, beside the row, the model and the code."""
    on_gpu = device.type == "cuda"
    library = torch.backends.cudnn.version() or 0 if on_gpu else torch.get_num_threads()
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        ("cudnn" if on_gpu else "threads"): library,
        "share_prefixes": str(share_prefixes).lower(),
        "tokens_of_a_pass": sizes.max_num_batched_tokens,
        "sequences_of_a_step": sizes.max_num_seqs,
        **({"key_splits": key_splits} if key_splits > 1 else {}),
        **({"tensor_parallel": ranks} if ranks > 1 else {}),
    }
