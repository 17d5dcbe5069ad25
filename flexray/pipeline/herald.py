"""Says what a run is at, or waits for, while no shard is committed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ray

from flexray.pipeline.job_tracker import Engine, describe_engines
from flexray.pipeline.nodes import describe

QUIET_SECONDS = 30.0
"""After which a line is said, and between two lines."""


class Herald:
    """Looks into the ledger from time to time, in the driver."""

    def __init__(self, tracker: Any, cpus: float, gpus: float, note: Callable[[str], None]):
        """
        Args:
            ledger: the actor. cpus, gpus: of an engine.
        """
        self._tracker = tracker
        self._wants = cpus, gpus
        self._note = note
        self._ended = threading.Event()
        self._heard = time.monotonic()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """While the run is."""
        thread = threading.Thread(target=self._look_on, name="herald", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()

    def heard(self) -> None:
        """Something else was said: a shard is committed."""
        self._heard = time.monotonic()

    def _look_on(self) -> None:
        while not self._ended.wait(1.0):
            if time.monotonic() - self._heard < QUIET_SECONDS:
                continue
            self.heard()
            with contextlib.suppress(Exception):  # of Ray, that ends just now
                engines = ray.get(self._tracker.look.remote(), timeout=QUIET_SECONDS)
                line = self.line(engines)
                if line and not self._ended.is_set():
                    self._note(line)

    def line(self, engines: list[Engine]) -> str:
        """What is said of these engines."""
        if engines:
            return describe_engines(engines)
        have, free = ray.cluster_resources(), ray.available_resources()
        both = [describe(some.get("CPU", 0.0), some.get("GPU", 0.0)) for some in (free, have)]
        return (
            f"waiting: an engine wants {describe(*self._wants)} on one node; free in the cluster: {both[0]} "
            f"of {both[1]}"
        )
