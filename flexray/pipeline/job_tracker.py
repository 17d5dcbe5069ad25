"""What the engines of a run are doing. They report to one actor, and the driver prints a status line when no
shard has been committed for a while."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import ray

from flexray.pipeline.crash_tracker import CrashTracker
from flexray.pipeline.nodes import describe_resources

STALE_SECONDS = 60.0
"""An engine that has not reported for this long is no longer counted."""
QUIET_SECONDS = 30.0
"""A status line is printed after this many seconds without any other line."""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What an engine is doing."""

    phase: Literal["idle", "loading", "answering"] = "idle"
    shards: int = 0  # shards of the current call
    questions: int = 0  # questions in these shards
    tokens: int = 0  # tokens of the answers that are finished in this call


@dataclass(slots=True)
class JobTracker(CrashTracker):
    """The state of a run: its crashes, and the last status of each engine. Runs as an actor on the driver's
    node."""

    engines: dict[str, tuple[float, EngineStatus]] = field(default_factory=dict)

    def report(self, engine_id: str, status: EngineStatus) -> None:
        """Store the status of an engine; each engine reports every few seconds."""
        self.engines[engine_id] = time.monotonic(), status

    def live_engines(self) -> list[EngineStatus]:
        """The status of each engine that has reported in the last STALE_SECONDS."""
        since = time.monotonic() - STALE_SECONDS
        return [status for reported, status in self.engines.values() if reported >= since]


def describe_engines(engines: list[EngineStatus]) -> str:
    """The status as one line of text; "" if no engine is busy.

    >>> describe_engines([EngineStatus("answering", 2, 24, 1200), EngineStatus("loading", 1, 12)])
    'answering: 24 questions in 2 shards in progress, 1,200 tokens of finished answers'
    """
    busy = [engine for engine in engines if engine.phase == "answering"]
    if busy:
        shards, questions, tokens = (
            sum(getattr(engine, count) for engine in busy) for count in ("shards", "questions", "tokens")
        )
        some = f"{shards:,} shard{'s' * (shards != 1)}"
        return (
            f"answering: {questions:,} questions in {some} in progress, {tokens:,} tokens of finished answers"
        )
    loading = sum(engine.phase == "loading" for engine in engines)
    return f"loading the model: {loading} engine{'s' * (loading != 1)}" if loading else ""


class StatusPrinter:
    """Prints a status line in the driver when nothing else was printed for QUIET_SECONDS."""

    def __init__(self, tracker: Any, cpus: float, gpus: float, log: Callable[[str], None]):
        """
        Args:
            tracker: the JobTracker actor.
            cpus, gpus: what one engine needs.
        """
        self._tracker = tracker
        self._wanted = cpus, gpus
        self._log = log
        self._ended = threading.Event()
        self._last_line = time.monotonic()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Print in a background thread until the context ends."""
        threading.Thread(target=self._watch, name="status", daemon=True).start()
        try:
            yield
        finally:
            self._ended.set()

    def reset(self) -> None:
        """Wait another QUIET_SECONDS, because another line was printed."""
        self._last_line = time.monotonic()

    def _watch(self) -> None:
        while not self._ended.wait(1.0):
            if time.monotonic() - self._last_line < QUIET_SECONDS:
                continue
            self.reset()
            with contextlib.suppress(Exception):  # Ray may be shutting down
                line = self._line(ray.get(self._tracker.live_engines.remote(), timeout=QUIET_SECONDS))
                if line and not self._ended.is_set():
                    self._log(line)

    def _line(self, engines: list[EngineStatus]) -> str:
        if engines:
            return describe_engines(engines)
        have, free = (
            describe_resources(some.get("CPU", 0.0), some.get("GPU", 0.0))
            for some in (ray.cluster_resources(), ray.available_resources())
        )
        wanted = describe_resources(*self._wanted)
        return f"waiting: an engine needs {wanted} on one node; free in the cluster: {free} of {have}"
