"""What the engine counted: tokens, passes, attention calls, seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flexray.config import Backend
from flexray.engine.fallback import BACKENDS


@dataclass(slots=True)
class EngineStats:
    """Counters since the engine was made.

    Seconds are the host's. On a GPU those of prefill are of laying out and launching only: the host waits for
    the device where it looks which branches are done, and that counts as decoding.
    """

    calls: dict[Backend, Tensor]  # int64 [1] on the device: layers in which this backend attended
    context_tokens: int = 0
    prefill_tokens: int = 0
    shared_tokens: int = 0  # that need not be prefilled, as paraphrases of one question begin alike
    generated_tokens: int = 0
    decode_steps: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0

    @classmethod
    def zero(cls, device: torch.device) -> EngineStats:
        """All counters at 0."""
        return cls({b: torch.zeros(1, dtype=torch.int64, device=device) for b in BACKENDS})

    def to_dict(self) -> dict[str, Any]:
        """For a manifest: plain numbers."""
        return {
            "attention_calls": {b: int(n) for b, n in self.calls.items()},
            "context_tokens": self.context_tokens,
            "prefill_tokens": self.prefill_tokens,
            "shared_tokens": self.shared_tokens,
            "generated_tokens": self.generated_tokens,
            "decode_steps": self.decode_steps,
            "prefill_seconds": round(self.prefill_seconds, 3),
            "decode_seconds": round(self.decode_seconds, 3),
        }
