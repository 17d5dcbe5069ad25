"""Which faults move a batch to the next backend. Every backend has the same mask."""

from __future__ import annotations

import functools

import torch

from flexray.types import Backend

LADDER: tuple[Backend, ...] = ("flex", "sdpa", "eager")


def next_backends(requested: Backend) -> tuple[Backend, ...]:
    """The requested backend and those below it."""
    return LADDER[LADDER.index(requested) :]


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


def describe(backend: Backend, error: BaseException) -> str:
    """One line for `fallback_reason`: the backend, the type, the first telling line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{backend}: {type(error).__name__}: {lines[0][:160] if lines else ''}"
