"""The processes of ranks 1 to n - 1: they do what rank 0 asks of them, and end with it."""

from __future__ import annotations

import ctypes
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any

from flexray.engine.ranks import RankError, portable
from flexray.errors import UserError

PR_SET_PDEATHSIG = 1  # of Linux


def main() -> None:
    """Arguments: file descriptor of the connection to rank 0, its process id, this rank, ranks in all."""
    descriptor, parent, rank, ranks = map(int, sys.argv[1:])
    os.set_inheritable(descriptor, False)
    _die_with(parent)
    connection = Connection(descriptor)
    asked: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, asked), daemon=True).start()
    # torch takes seconds to import: from here on this process ends if rank 0 does
    from flexray.engine.fallback import is_out_of_memory, is_poisoned
    from flexray.engine.rank import Rank

    own = Rank(rank, ranks)
    while True:
        message = asked.get()
        reply: Any = None
        is_fatal = False
        try:
            method, arguments = pickle.loads(message)
            reply = getattr(own, method)(*arguments)
        except UserError as e:
            reply = e
        except BaseException as e:  # also what ends a process: rank 0 has to know
            traceback.print_exc()
            is_fatal = is_out_of_memory(e) or is_poisoned(e)
            reply = portable(RankError(f"rank {rank}: {type(e).__name__}: {e}"))
        connection.send((reply, is_fatal))


def _listen(connection: Connection, asked: queue.SimpleQueue[bytes]) -> None:
    """Pass on what rank 0 asks, until it is gone: then so is this process, whatever its main thread does."""
    while True:
        try:
            asked.put(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)


def _die_with(parent: int) -> None:
    """End with the process that has started this one, also if this one hangs in a kernel meanwhile."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    main()
