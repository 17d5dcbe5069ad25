"""Copies between host and device for which neither waits: they queue up behind what the device has to do."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy to the device from pinned memory; from pageable memory the host would wait until all that the
    device has to do is done."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class ToHost:
    """Tensors of one device on their way to the host, as they are when all that was asked of the device
    before is done. Nothing may write into them later: they are made for this."""

    def __init__(self, *tensors: Tensor):
        self._copies, self._event = tensors, None
        if tensors[0].is_cuda:
            self._copies = tuple(torch.empty_like(t, device="cpu", pin_memory=True) for t in tensors)
            for copy, tensor in zip(self._copies, tensors, strict=True):
                copy.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def wait(self) -> tuple[Tensor, ...]:
        """Their copies, once they are here; the host does not wait for what the device does after them."""
        if self._event is not None:
            self._event.synchronize()
        return self._copies
