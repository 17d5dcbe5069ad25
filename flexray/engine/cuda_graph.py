"""A piece of work that is done again and again, as one launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class CudaGraph(Generic[T]):
    """Runs a function on a GPU: once as it is, which may compile, then by capturing and replaying it as a
    CUDA graph. So its tensors must be the same objects each time, and what it returns is overwritten by the
    next call.

    Attributes:
        is_captured: whether calls are replays, whose results always lie at the same place.
    """

    def __init__(self, function: Callable[[], T]):
        self.is_captured = False
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        self._is_warm = False
        self._result: T

    def __call__(self) -> T:
        if not self._is_warm:
            self._is_warm = True
            return self._function()
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._result = self._function()
            self._graph, self.is_captured = graph, True
        self._graph.replay()
        return self._result
