"""Python's garbage collector in processes that flexray starts itself."""

from __future__ import annotations

import functools
import gc


@functools.cache
def freeze() -> None:
    """Once a process: the collector never again looks at the objects that there are now, half a million of
    torch alone. Each of its full passes would take 0.3 s, in which nothing is launched on the GPU."""
    gc.collect()
    gc.freeze()
