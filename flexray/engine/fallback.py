"""Which faults move a batch to the next backend. Every backend has the same mask."""

from __future__ import annotations

import functools
from collections import Counter

import torch

from flexray.types import Backend

LADDER: tuple[Backend, ...] = ("flex", "sdpa", "eager")
FAULTS_ALLOWED = 3
"""Times that a backend that has worked, or the full size, may fail before it is given up."""


class Ladder:
    """Which backends are tried, in order, and what the engine has learned about them."""

    def __init__(self, requested: Backend):
        self._backends = LADDER[LADDER.index(requested) :]
        self._worked: set[Backend] = set()
        self._faults: Counter[Backend] = Counter()
        self._full_size_failed = 0
        self.broken: dict[Backend, str] = {}  # given up, and why

    def backends(self) -> list[Backend]:
        """The requested backend and those below it, less the broken ones."""
        return [backend for backend in self._backends if backend not in self.broken]

    def worked(self, backend: Backend, instead_of: dict[Backend, str]) -> None:
        """A backend has answered rows at which others failed: then it was those, not the rows. One that has
        never worked is given up at once, else after FAULTS_ALLOWED times."""
        self._worked.add(backend)
        for other, reason in instead_of.items():
            self._faults[other] += 1
            if other not in self._worked or self._faults[other] >= FAULTS_ALLOWED:
                self.broken[other] = reason

    def full_size_failed(self) -> None:
        """The memory did not hold the full size; sizes below it do not count."""
        self._full_size_failed += 1

    def tries_full_size_again(self) -> bool:
        """Whether the next call starts with the full size: one large row need not slow down the night."""
        return self._full_size_failed < FAULTS_ALLOWED


@functools.cache
def handled_errors() -> tuple[type[Exception], ...]:
    """Out of memory, and faults of a compiler or kernel, which another backend may not have. Any other
    fault is a bug or a bad device and is raised: to answer over it would hide it."""
    import torch._dynamo.exc
    import torch._inductor.exc

    errors: list[type[Exception]] = [
        torch.OutOfMemoryError,
        NotImplementedError,  # a kernel that does not support the device, dtype or shape
        torch._dynamo.exc.TorchDynamoException,
        torch._inductor.exc.InductorError,
    ]
    try:
        from triton.compiler.errors import CompilationError
        from triton.runtime.errors import OutOfResources, PTXASError

        errors += [CompilationError, OutOfResources, PTXASError]
    except ImportError:  # no triton, no such errors
        pass
    return tuple(errors)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether fewer rows at once may help."""
    return isinstance(error, torch.OutOfMemoryError)


def is_poisoned(error: BaseException) -> bool:
    """Whether the device is lost to this process: after a failed kernel (an assert, an illegal access), CUDA
    reports the same error to every later call."""
    accelerator = getattr(torch, "AcceleratorError", None)
    if accelerator is not None and isinstance(error, accelerator):
        return True
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)


def describe(backend: Backend, error: BaseException) -> str:
    """One line for `fallback_reason`: the backend, the type, the first telling line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{backend}: {type(error).__name__}: {lines[0][:160] if lines else ''}"
