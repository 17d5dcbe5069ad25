"""The device that a plan is made for: a named GPU, or GPU or CPUs of this machine or of a cluster."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from flexray.config import RunConfig
from flexray.engine.scheduler_config import GIB
from flexray.errors import ConfigError
from flexray.pipeline.ray_connection import is_for_a_cluster
from flexray.preflight.host import ram_bytes


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU model: the memory that torch reports, and the peak performance by its data sheet."""

    memory_gib: float
    peak_16_bit: float  # FLOP/s, dense
    peak_32_bit: float
    has_bfloat16: bool = True


# The peaks are those of the SXM modules, if there are any.
GPUS = {
    "H200-141GB": Gpu(139.8, 989e12, 67e12),
    "H100-80GB": Gpu(79.2, 989e12, 67e12),
    "A100-80GB": Gpu(79.2, 312e12, 19.5e12),
    "A100-40GB": Gpu(39.4, 312e12, 19.5e12),
    "L40S-48GB": Gpu(44.4, 362e12, 91.6e12),
    "L4-24GB": Gpu(22.0, 121e12, 30.3e12),
    "A10G-24GB": Gpu(22.0, 70e12, 35e12),
    "A10-24GB": Gpu(22.0, 125e12, 31.2e12),
    "T4-16GB": Gpu(14.6, 65e12, 8.1e12, has_bfloat16=False),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """What holds the model."""

    name: str
    is_gpu: bool
    memory: int | None  # bytes; None: unknown
    gpu: Gpu | None = None  # None: a CPU, or a GPU of an unknown model

    @property
    def has(self) -> str:
        """Its name and memory, for people."""
        memory = "memory that is not known" if self.memory is None else f"{self.memory / GIB:.1f} GiB"
        return f"{self.name} has {memory}"

    def peak(self, dtype: str) -> float | None:
        """Peak performance in FLOP/s by its data sheet; None: not known."""
        if self.gpu is None:
            return None
        return self.gpu.peak_32_bit if dtype == "float32" else self.gpu.peak_16_bit


def find_device(config: RunConfig, name: str | None, memory_gib: float | None) -> Device:
    """The named device, else the one that a run started here would use. Nothing is known of a cluster's.

    Args:
        name: a key of GPUS, or words of one that are in no other. memory_gib: overrides the GPU's memory.

    Raises:
        ConfigError: no such GPU is known.
    """
    if name is not None:
        known, gpu = _named(name)
        return Device(name=known, is_gpu=True, memory=int((memory_gib or gpu.memory_gib) * GIB), gpu=gpu)
    if memory_gib is not None:
        return Device(name=f"a GPU of {memory_gib:g} GiB", is_gpu=True, memory=int(memory_gib * GIB))
    import torch

    if config.model.device != "cpu" and torch.cuda.is_available():
        local = torch.cuda.get_device_properties(0)
        return Device(name=local.name, is_gpu=True, memory=local.total_memory, gpu=_look_up(local.name))
    for_a_cluster = is_for_a_cluster(config)
    if config.model.device == "cuda" or (config.model.device == "auto" and for_a_cluster):
        return Device(name="a GPU", is_gpu=True, memory=None)
    if for_a_cluster:
        return Device(name="a node's CPUs", is_gpu=False, memory=None)
    return Device(name=f"{os.cpu_count()} CPUs of this machine", is_gpu=False, memory=ram_bytes())


def _named(name: str) -> tuple[str, Gpu]:
    words = _words(name)
    fitting = [known for known in GPUS if words and words <= _words(known)]
    if len(fitting) != 1:
        what = f"may be {' or '.join(fitting)}" if fitting else f"is not known; known: {', '.join(GPUS)}"
        raise ConfigError(f"--gpu {name}: {what}. Give one of them, or the memory by --gpu-memory GIB.")
    return fitting[0], GPUS[fitting[0]]


def _look_up(name: str) -> Gpu | None:
    """The GPU by its driver's name, such as `NVIDIA A100-SXM4-40GB`. Its memory may differ: only the peaks
    are used."""
    words = _words(name)
    return next((gpu for known, gpu in GPUS.items() if known.partition("-")[0].lower() in words), None)


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.lower().replace("gb", ""))) - {"nvidia"}
