"""The processes of ranks 1 to n - 1, as rank 0 sees them: it starts them, asks them, and ends with them."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

GRACE_SECONDS = 60.0
"""How long rank 0 may go on after another rank's error: one that all ranks meet alike it raises itself."""

DEATH_SECONDS = 2.0
"""How long after a failed sum a rank's death is waited for."""


class RankError(RuntimeError):
    """What another rank has raised, if it is not the user's to put right."""


class Ranks:
    """The other ranks' processes. If one of them dies, so does this process: it may be waiting within a sum
    for numbers that will never come, and whoever has started it (Ray) starts it anew. They die with this
    process, however it ends (`flexray.engine.rank_main`).

    Args:
        ranks: all, with this process.
    """

    def __init__(self, ranks: int):
        self.ranks, self.is_closed = ranks, False
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection] = []
        self._replies: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in range(1, ranks)]
        self._together = False
        self._timer: threading.Timer | None = None
        started: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        # the kernel ends a rank with the thread that has started it: the one that lives as long as they do
        self._thread = threading.Thread(target=self._run, args=(started,), name="ranks", daemon=True)
        self._thread.start()
        if (error := started.get()) is not None:
            raise error

    def ask(self, method: str, *arguments: Any, together: bool = True) -> None:
        """Ask each rank to call a method of `Rank`; `replies` waits for the outcomes.

        Args:
            together: rank 0 does the same meanwhile, and may wait for them within it.

        Raises:
            RankError: they have ended.
        """
        if self.is_closed:
            raise RankError("the other ranks have ended with an earlier call. Load the model again.")
        self._together = together
        for connection in self._connections:
            connection.send((method, arguments))

    def replies(self) -> list[Any]:
        """What each of them returns. Raises what one of them has raised."""
        found = [replies.get() for replies in self._replies]
        for reply in found:
            if isinstance(reply, BaseException):
                raise reply
        return found

    def wait_for_death(self) -> None:
        """Let the thread that watches them end this process, if one of them has died: the sum that it was
        part of may have failed before the thread has seen it."""
        self._thread.join(DEATH_SECONDS)

    def close(self) -> None:
        """End the other ranks, whatever they are doing."""
        self.is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()

    def _run(self, started: queue.SimpleQueue[Exception | None]) -> None:
        try:
            for rank in range(1, self.ranks):
                ours, process = _start(rank, self.ranks)
                self._connections.append(ours)
                self._processes.append(process)
        except OSError as e:
            self.close()
            started.put(e)
            return
        started.put(None)
        self._watch()

    def _watch(self) -> None:
        """Take what they send until one of them ends."""
        while True:
            for ready in wait(self._connections):
                rank = 1 + self._connections.index(ready)  # type: ignore[arg-type]
                try:
                    reply, is_fatal = self._connections[rank - 1].recv()
                except (EOFError, OSError):
                    self._died(rank)
                    return
                if isinstance(reply, BaseException) and self._together:
                    line = f"rank {rank} of {self.ranks} has failed: {reply}"
                    self._timer = threading.Timer(0 if is_fatal else GRACE_SECONDS, self._exit, [line])
                    self._timer.daemon = True
                    self._timer.start()
                self._replies[rank - 1].put(reply)

    def _died(self, rank: int) -> None:
        code = self._processes[rank - 1].wait()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        self._exit(f"rank {rank} of {self.ranks} (process {self._processes[rank - 1].pid}) has ended {how}")

    def _exit(self, why: str) -> None:
        if not self.is_closed:
            print(f"{why}: a part of the model is gone, this process exits", file=sys.stderr, flush=True)
            os._exit(1)


def _start(rank: int, ranks: int) -> tuple[Connection, subprocess.Popen[bytes]]:
    ours, theirs = Pipe()
    path = [os.path.abspath(entry) for entry in sys.path]
    arguments = [str(number) for number in (theirs.fileno(), os.getpid(), rank, ranks)]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "flexray.engine.rank_main", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        process_group=0,  # Ctrl-C is for this process, which ends them
    )
    theirs.close()
    return ours, process


def talk_on_loopback() -> None:
    """Let torch's groups of this process and its children use the loopback interface: all ranks are on one
    machine, and nobody else can reach them there."""
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(variable, loopback)


def portable(error: BaseException) -> BaseException:
    """The error, or its text if it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RankError(f"{type(error).__name__}: {error}")
    return error
