"""Python's garbage collector in processes that flexray starts itself."""

from __future__ import annotations

import functools
import gc


@functools.cache
def freeze() -> None:
    """Once a process: the collector never again looks at the objects that there are now, which are torch's
    for the most part. Nothing is launched on the GPU while it looks at all of them."""
    gc.collect()
    gc.freeze()
