"""What happens after a fault: fewer rows at once, the next backend, the bad row by itself. Every backend
has the same mask, so there is no path on which isolation is lost."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator

import torch

from flexray.config import Backend
from flexray.engine.kv_cache import context_size
from flexray.engine.request import Request
from flexray.engine.scheduler_config import SchedulerConfig

BACKENDS: tuple[Backend, ...] = ("flex", "sdpa", "eager")
"""In the order in which one hands over to the next."""
FAULTS_ALLOWED = 3
"""Times that a backend that has worked, or the full size, may fail before it is given up."""
NOT_FINITE_NEARBY = "tried again by itself: logits in its batch were not finite"

Attempt = Callable[[list[Request], Backend, bool], Iterator[Request]]
"""Runs requests by one backend, each prefilled by itself if so asked; yields each as it finishes."""


class BackendFallback:
    """Which backends are tried, in order, at which sizes, and what the engine has learned about them.

    Args:
        sizes: the full size, which each call starts with.
        strict: raise what the requested backend raises.
    """

    def __init__(self, requested: Backend, sizes: SchedulerConfig, *, strict: bool):
        self.requested, self.full_sizes, self.sizes = requested, sizes, sizes
        self.given_up: dict[Backend, str] = {}  # and why
        self._strict = strict
        self._backends = BACKENDS[BACKENDS.index(requested) :]
        self._worked: set[Backend] = set()
        self._faults: Counter[Backend] = Counter()
        self._full_size_failed = 0
        self._why_halved = ""

    def start_call(self) -> None:
        """Start with the full size, unless that has failed too often: one large row need not slow down the
        night."""
        if self._full_size_failed < FAULTS_ALLOWED:
            self.sizes = self.full_sizes

    def run(self, requests: list[Request], attempt: Attempt) -> Iterator[Request]:
        """Run requests to their ends: yields each when it is answered, or has its `error`.

        A backend that fails on the named list of errors hands over to the next; out of memory halves the
        sizes first. Requests that no backend answers are halved until the bad ones are alone. Those whose
        logits are not finite are prefilled again by themselves: in a packed pass a NaN reaches other
        requests (0 x NaN).

        Raises:
            the backend's own error, if strict; any error that is not on the list, always.
        """
        parts = [requests]
        while parts:
            left = yield from self._try_backends(parts.pop(), attempt)
            if len(left) > 1:
                middle = len(left) // 2
                parts += [left[middle:], left[:middle]]
            elif left:
                left[0].error = "no backend could answer this row: " + "; ".join(left[0].reasons)
                yield left[0]

    def _try_backends(
        self, requests: list[Request], attempt: Attempt
    ) -> Generator[Request, None, list[Request]]:
        """Try one backend after another. Returns the requests that none could answer."""
        known = list(self.given_up.values())
        if self.sizes != self.full_sizes:  # which may decide near-ties otherwise
            known.append(self._why_halved)
        for request in requests:
            for reason in known:
                request.explain(reason)
        failed: dict[Backend, str] = {}
        for backend in self._backends:
            if backend in self.given_up:
                continue
            alone = False
            while requests:
                left = dict.fromkeys(requests)
                for request in requests:
                    request.attempts += 1
                try:
                    for request in attempt(requests, backend, alone):
                        if request.is_finite or alone:
                            del left[request]
                            request.backend = backend
                            yield request
                except BaseException as error:
                    if self._strict or not isinstance(error, handled_errors()):
                        raise
                    reason = describe_fault(backend, error)
                    if halves := is_out_of_memory(error) and self.sizes.max_num_seqs > 1:
                        self._halve(left)
                        reason = f"{reason} (rows at once halved to {self.sizes.max_num_seqs})"
                        self._why_halved = reason
                    for request in left:
                        request.explain(reason)
                    requests = list(left)
                    if not halves:
                        failed[backend] = reason
                        break
                else:
                    self._note_success(backend, instead_of=failed)
                    for request in left:
                        request.explain(NOT_FINITE_NEARBY)
                    requests, alone = list(left), True
        return requests

    def _halve(self, requests: Iterable[Request]) -> None:
        """Fewer rows at once, but a cache that holds each of these requests."""
        if self.sizes == self.full_sizes:  # sizes below it do not count
            self._full_size_failed += 1
        needs = [self.sizes.least_slots(context_size(r.context), r.num_slots) for r in requests]
        self.sizes = self.sizes.halved(max(needs, default=0))  # none: the fault came behind the last answer

    def _note_success(self, backend: Backend, instead_of: dict[Backend, str]) -> None:
        """A backend has run requests at which others failed: then it was those, not the requests. One that
        has never worked is given up at once, else after FAULTS_ALLOWED times."""
        self._worked.add(backend)
        for other, reason in instead_of.items():
            self._faults[other] += 1
            if other not in self._worked or self._faults[other] >= FAULTS_ALLOWED:
                self.given_up[other] = reason


@functools.cache
def handled_errors() -> tuple[type[Exception], ...]:
    """Out of memory, and faults of a compiler or kernel, which another backend may not have. Any other
    fault is a bug or a bad device and is raised: to answer in spite of it would hide it."""
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
    named = isinstance(error, RuntimeError) and "CUDA error" in str(error)
    return named or isinstance(error, torch.AcceleratorError)


def describe_fault(backend: Backend, error: BaseException) -> str:
    """One line for `fallback_reason`: the backend, the type, the first telling line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{backend}: {type(error).__name__}: {lines[0][:160] if lines else ''}"
