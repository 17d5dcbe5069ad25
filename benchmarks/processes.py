"""CPU time and memory of this process and of the processes that it has started, by kind, while they live."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

SECONDS = 0.25
"""Between two looks; what a process does after the last one is not seen."""
KINDS = {"AnswerActor": "answer", "InstantActor": "answer", "JobTracker": "tracker"}
OTHERS = "prepare and commit"
"""Ray's workers that are no actors: one runs tasks of both stages."""
_RAY = {"raylet": "raylet", "gcs_server": "gcs"}


@dataclass(slots=True)
class Used:
    """What the processes of one kind have used since the start."""

    processes: int = 0
    cpu_seconds: float = 0.0
    rss: int = 0
    """The most bytes that they held at once, shared pages of the object store included."""


class Processes:
    """Looks at the processes in a thread, as a context."""

    def __init__(self) -> None:
        self._before: dict[int, float] = {}
        self._last: dict[tuple[int, str], float] = {}
        self._rss: defaultdict[str, int] = defaultdict(int)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._before = {pid: cpu for pid, _, cpu, _ in _look()}
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
        for (pid, kind), cpu in self._last.items():
            found[kind].processes += 1
            found[kind].cpu_seconds += cpu - self._before.get(pid, 0.0)
        for kind, rss in self._rss.items():
            found[kind].rss = rss
        return dict(found)

    def _watch(self) -> None:
        while True:
            rss: defaultdict[str, int] = defaultdict(int)
            names = dict(self._last)  # kinds by pid
            for pid, kind, cpu, held in _look():
                # a worker has the name of its task only as long as that runs; an actor keeps its own
                if kind == OTHERS and names.get(pid) in KINDS.values():
                    kind = names[pid]
                if kind != OTHERS and names.get(pid) == OTHERS:
                    del self._last[pid, OTHERS]
                self._last[pid, kind] = cpu
                rss[kind] += held
            for kind, held in rss.items():
                self._rss[kind] = max(self._rss[kind], held)
            if self._ended.wait(SECONDS):
                return


def _look() -> list[tuple[int, str, float, int]]:
    """Pid, kind, seconds of CPU and bytes of memory of each process."""
    me, found = psutil.Process(), []
    for process in (me, *me.children(recursive=True)):
        try:
            with process.oneshot():
                kind = "driver" if process == me else _kind(process)
                times = process.cpu_times()
                found.append((process.pid, kind, times.user + times.system, process.memory_info().rss))
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
