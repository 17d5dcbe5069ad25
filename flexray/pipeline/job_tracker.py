"""What the engines of a run are at. One actor keeps it, beside the driver; engines come and go."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from flexray.pipeline.crash_tracker import CrashTracker

STALE_SECONDS = 60.0
"""Who has told nothing for so long is gone."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What an engine is at."""

    phase: Literal["idle", "loading", "answering"] = "idle"
    shards: int = 0  # that it answers now
    questions: int = 0  # of them
    tokens: int = 0  # of those of their answers that are finished


@dataclass(slots=True)
class JobTracker(CrashTracker):
    """The notes of a run: of its deaths, and of what each engine has told last."""

    engines: dict[str, tuple[float, Engine]] = field(default_factory=dict)

    def tell(self, name: str, engine: Engine) -> None:
        """An engine, by a name of its own, says what it is at; it does so every few seconds."""
        self.engines[name] = time.monotonic(), engine

    def look(self) -> list[Engine]:
        """What those that live are at."""
        since = time.monotonic() - STALE_SECONDS
        return [engine for told, engine in self.engines.values() if told >= since]


def describe_engines(engines: list[Engine]) -> str:
    """One line for people; "": nothing is worth one.

    >>> describe_engines([Engine("answering", 2, 24, 1200), Engine("loading", 1, 12)])
    'answering: 24 questions in 2 shards under way, 1,200 tokens of finished answers'
    """
    busy = [engine for engine in engines if engine.phase == "answering"]
    if busy:
        shards, questions, tokens = (
            sum(getattr(engine, count) for engine in busy) for count in ("shards", "questions", "tokens")
        )
        some = f"{shards:,} shard{'s' * (shards != 1)}"
        return (
            f"answering: {questions:,} questions in {some} under way, {tokens:,} tokens of finished answers"
        )
    loading = sum(engine.phase == "loading" for engine in engines)
    return f"loading the model: {loading} engine{'s' * (loading != 1)}" if loading else ""
