"""Host arrays to the device without waiting for it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy to the device. From pinned memory, so that on a GPU the copy queues up behind the work before
    it while the host goes on; from pageable memory the host would wait until all of that is done."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
