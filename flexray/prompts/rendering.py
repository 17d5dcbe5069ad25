"""Render a chat template in a separate process, which can be stopped at any time.

A template comes with the model and is code. Transformers runs it in jinja's sandbox, where it can open no
file and change no object. But it may compute forever, in Python or inside one operation, or fill the memory.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
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
    processes = multiprocessing.get_context("fork")
    receiver, sender = processes.Pipe(duplex=False)
    child = processes.Process(target=_work, args=(render, sender))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads, which the copy does not need
        child.start()
    sender.close()
    try:
        answer = receiver.recv_bytes(OUTPUT) if receiver.poll(PATIENCE) else b""
    except EOFError:  # it ended without an answer
        answer = b""
    except OSError as e:
        raise LimitExceeded(f"it writes more than {OUTPUT >> 20} MiB") from e
    finally:
        receiver.close()
        child.kill()
        child.join()
    if not answer:
        cause = "time" if child.exitcode in (-signal.SIGXCPU, -signal.SIGKILL) else "memory"
        raise LimitExceeded(f"it takes too much {cause}")
    found: dict[str, str] = json.loads(answer)
    if "error" in found:
        raise RenderingError(found["error"])
    return found["text"]


def _work(render: Callable[[], str], sender: Connection) -> NoReturn:
    """In the copy: send the text or the error, and exit."""
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
        sender.send_bytes(json.dumps(answer).encode())
    finally:
        os._exit(0)


def _limit(kind: int, most: int) -> None:
    """Set a limit of this process, unless it has a lower one."""
    _, hard = resource.getrlimit(kind)
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (least, least))
