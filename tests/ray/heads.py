"""A head of Ray that a test starts with `ray start --block`."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from pathlib import Path

import psutil

from tests.ray.jobs import kill


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def wait_until_it_listens(port: int, starter: subprocess.Popen, log: Path, seconds: float = 60) -> None:
    end_time = time.monotonic() + seconds
    while True:
        assert starter.poll() is None, log.read_text()
        assert time.monotonic() < end_time, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)


def end(starter: subprocess.Popen) -> None:
    """End `ray start --block` and what it has started; `ray stop` would end every Ray of the machine."""
    processes: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(starter.pid)
        processes = [parent, *parent.children(recursive=True)]
    kill(processes)
    starter.wait()
