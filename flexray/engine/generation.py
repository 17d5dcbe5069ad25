"""One answer of the engine. Light to import: what reads answers needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flexray.config import Backend

FinishReason = Literal["eos", "newline", "length", "error"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """One answer to a Prompt, and how it was computed."""

    token_ids: tuple[int, ...] = ()  # generated ids, the stop token included
    finish_reason: FinishReason
    backend_requested: Backend
    backend_used: Backend | Literal[""] = ""  # "" when no backend produced an answer
    fallback_reason: str = ""
    attempts: int = 1
    error: str = ""
    subset: tuple[int, ...] = ()  # indices of the paraphrases that a draw was made from; else ()
