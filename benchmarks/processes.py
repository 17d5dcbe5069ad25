"""CPU time and memory of a driver and of the processes that it has started, by kind, while they live."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

SECONDS = 0.5
"""Between two looks; what a process does after the last one is not seen."""
KINDS = {"AnswerActor": "answer", "InstantActor": "answer", "JobTracker": "tracker"}
OTHERS = "prepare and commit"
"""Ray's workers that are no actors: one runs tasks of both stages."""
_RAY = {"raylet": "raylet", "gcs_server": "gcs"}


@dataclass(slots=True)
class Used:
    """What the processes of one kind have used since they started."""

    processes: int = 0
    cpu_seconds: float = 0.0
    rss: int = 0
    """The most bytes that they held at once, shared pages of the object store included."""


class Processes:
    """Looks at the processes from another one than the driver, in a thread, as a context."""

    def __init__(self, driver: int) -> None:
        """`driver`: its pid."""
        self._driver = psutil.Process(driver)
        self._last: dict[tuple[int, str], float] = {}
        self._rss: defaultdict[str, int] = defaultdict(int)
        self._looks: list[tuple[float, dict[str, float]]] = []  # when, and seconds of CPU so far by kind
        self.object_store = 0
        """The most bytes of memory that Ray's object store has touched."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def used(self) -> dict[str, Used]:
        """By kind: driver, answer, prepare and commit, raylet, gcs, tracker, other."""
        found: defaultdict[str, Used] = defaultdict(Used)
        for (_, kind), cpu in self._last.items():
            found[kind].processes += 1
            found[kind].cpu_seconds += cpu
        for kind, rss in self._rss.items():
            found[kind].rss = rss
        return dict(found)

    def cores(self, start: float, end: float) -> dict[str, float]:
        """By kind: seconds of CPU a second between two times (of `time.time`), as far as was looked."""
        looks = [look for look in self._looks if start <= look[0] <= end]
        if len(looks) < 2:
            return {}
        (began, before), (ended, after) = looks[0], looks[-1]
        return {kind: (cpu - before.get(kind, 0.0)) / (ended - began) for kind, cpu in after.items()}

    def timeline(self, kind: str) -> list[tuple[float, float]]:
        """Times (of `time.time`), and the seconds of CPU that a kind had used by then."""
        return [(when, cpu.get(kind, 0.0)) for when, cpu in self._looks]

    def _watch(self) -> None:
        while True:
            rss: defaultdict[str, int] = defaultdict(int)
            names = dict(self._last)  # kinds by pid
            for pid, kind, cpu, held in self._look():
                # a worker has the name of its task only as long as that runs; an actor keeps its own
                if kind == OTHERS and names.get(pid) in KINDS.values():
                    kind = names[pid]
                if kind != OTHERS and names.get(pid) == OTHERS:
                    del self._last[pid, OTHERS]
                self._last[pid, kind] = cpu
                rss[kind] += held
            for kind, held in rss.items():
                self._rss[kind] = max(self._rss[kind], held)
            so_far: defaultdict[str, float] = defaultdict(float)
            for (_, kind), cpu in self._last.items():
                so_far[kind] += cpu
            self._looks.append((time.time(), dict(so_far)))
            if self._ended.wait(SECONDS):
                return

    def _look(self) -> list[tuple[int, str, float, int]]:
        """Pid, kind, seconds of CPU and bytes of memory of each process."""
        found: list[tuple[int, str, float, int]] = []
        try:
            processes = [self._driver, *self._driver.children(recursive=True)]
        except psutil.Error:  # it has ended
            return found
        for process in processes:
            try:
                with process.oneshot():
                    kind = "driver" if process == self._driver else _kind(process)
                    times = process.cpu_times()
                    cpu = times.user + times.system
                    found.append((process.pid, kind, cpu, process.memory_info().rss))
                if kind == _RAY["raylet"]:
                    self.object_store = max(self.object_store, _plasma_bytes(process.pid))
            except psutil.Error:  # it has ended meanwhile
                continue
        return found


def _kind(process: psutil.Process) -> str:
    name, command = process.name(), " ".join(process.cmdline())
    if name in _RAY:
        return _RAY[name]
    for part, kind in KINDS.items():
        if part in command:
            return kind
    return OTHERS if command.startswith("ray::") else "other"


def _plasma_bytes(raylet: int) -> int:
    """Memory behind the files of the object store, which have no name any more: what was touched so far."""
    files = {}
    with contextlib.suppress(OSError):  # it has ended
        for entry in os.scandir(f"/proc/{raylet}/fd"):
            with contextlib.suppress(OSError):
                if "plasma" in os.readlink(entry.path):
                    status = os.stat(entry.path)
                    files[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(files.values())
