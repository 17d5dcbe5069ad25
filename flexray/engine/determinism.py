"""What the bits of an answer rest on beside its row: how products are rounded.

Kernels add up in different orders, and they are chosen by the sizes of a product. So a deterministic engine
has one size of pass and one of decode batch (`SchedulerConfig.fixed`), and nothing else in it may add up
over several rows. What is left is cuBLAS, which splits a product over its workspace where it has some.
"""

from __future__ import annotations

import os

import torch

from flexray.engine.scheduler_config import SchedulerConfig
from flexray.errors import ConfigError

ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":16:8", "CUBLASLT_WORKSPACE_SIZE": "1"}
"""Read by torch at a process's first product on a GPU."""
_NOT_SET = (
    "engine.deterministic: an engine without it has been at work in this process, and cuBLAS keeps its "
    "settings. Make the deterministic one first, or in another process."
)
_first_was_deterministic: bool | None = None


def set_rounding(device: torch.device, *, deterministic: bool) -> None:
    """Make the products of this process round in one way, if so wanted.

    Raises:
        ConfigError: it is too late, since this process has had another engine.
    """
    global _first_was_deterministic
    if device.type != "cuda":
        return
    if _first_was_deterministic is None:
        _first_was_deterministic = deterministic
    if not deterministic:
        return
    if not _first_was_deterministic:
        raise ConfigError(_NOT_SET)
    os.environ.update(ENVIRONMENT)
    torch.backends.cuda.preferred_blas_library("cublaslt")
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False


def describe_rounding(device: torch.device, sizes: SchedulerConfig) -> dict[str, str | int]:
    """What the bits of a deterministic engine's answers rest on, beside the row, the model and the code."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        **({} if on_gpu else {"threads": torch.get_num_threads()}),
        "tokens_of_a_pass": sizes.max_num_batched_tokens,
        "sequences_of_a_step": sizes.max_num_seqs,
    }
