"""Render a chat template in a separate process, which can be stopped at any time.

A template comes with the model and is code. Transformers runs it in jinja's sandbox, where it can open no
file and change no object. But it may compute forever, in Python or inside one operation, or fill the memory.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

SECONDS = 2
"""CPU time for a template. A long prompt takes a hundredth of a second."""
PATIENCE = 30.0
"""The most seconds to wait for it, on a busy machine too."""
MEMORY = 512 << 20
"""Bytes that a template may use in addition to the memory of the process."""
OUTPUT = 16 << 20
"""The most bytes that it may write."""
SHOWN = 300
"""Characters of its error in a message."""


class RenderingError(Exception):
    """The template failed."""


class LimitExceeded(RenderingError):
    """The template takes too much time or memory, or writes too much."""


def render_apart(render: Callable[[], str]) -> str:
    """Call `render` in a copy of this process, and return its result.

    Raises:
        RenderingError: it raised an error. LimitExceeded: it takes too much time or memory, or returns too
            long a text.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the copy needs none
        child = os.fork()
    if child == 0:
        _work(render, writer)
    os.close(writer)
    try:
        answer = _read(reader)
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if not answer:
        ended = os.WIFSIGNALED(status) and os.WTERMSIG(status)
        cause = "time" if ended in (signal.SIGXCPU, signal.SIGKILL) else "memory"
        raise LimitExceeded(f"it takes too much {cause}")
    found: dict[str, str] = json.loads(answer)
    if "error" in found:
        raise RenderingError(found["error"])
    return found["text"]


def _work(render: Callable[[], str], writer: int) -> NoReturn:
    """In the copy: write the text or the error, and exit."""
    try:
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_CPU, SECONDS)
        if (statm := Path("/proc/self/statm")).is_file():
            most = int(statm.read_text().split()[0]) * resource.getpagesize() + MEMORY
            _limit(resource.RLIMIT_AS, most)
        try:
            answer = {"text": render()}
        except MemoryError:
            answer = {"error": "it takes too much memory"}
        except Exception as e:  # a template may fail as any code may
            answer = {"error": f"{type(e).__name__}: {e}"[:SHOWN]}
        data = memoryview(json.dumps(answer).encode())
        while data:
            data = data[os.write(writer, data) :]
    finally:
        os._exit(0)


def _limit(kind: int, most: int) -> None:
    """Set a limit of this process, unless it has a lower one."""
    _, hard = resource.getrlimit(kind)
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (least, least))


def _read(reader: int) -> bytes:
    """All that is written to the pipe; nothing if its end does not come in time."""
    data, deadline = b"", time.monotonic() + PATIENCE
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        chunk = os.read(reader, 1 << 20)
        if not chunk:
            return data
        data += chunk
        if len(data) > OUTPUT:
            raise LimitExceeded(f"it writes more than {OUTPUT >> 20} MiB")
    return b""
