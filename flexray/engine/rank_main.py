"""What the processes of ranks 1 to n - 1 run: the whole engine, on their part of the model."""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch

from flexray.config import EngineConfig, GenerationConfig, MethodConfig, ModelConfig
from flexray.config import fault_injection as faults
from flexray.config.plugins import load_plugins
from flexray.engine.engine import Engine
from flexray.engine.fallback import is_out_of_memory, is_poisoned
from flexray.engine.parallel_engine import Digest, connect, load_part
from flexray.engine.ranks import RankError, portable
from flexray.errors import UserError
from flexray.models.all_reduce import RankGroup, join_ranks, leave_ranks
from flexray.prompts.prompt import Prompt

PR_SET_PDEATHSIG = 1  # of Linux


class Rank:
    """One rank's part of the model and its engine. Rank 0 calls its methods, in its own order."""

    def __init__(self, rank: int, ranks: int):
        self.rank, self.ranks = rank, ranks
        self._group: RankGroup
        self._engine: Engine | None = None

    def load(self, config: ModelConfig, plugins: Sequence[str]) -> str:
        """Load this rank's part of the model; returns the name of its device."""
        load_plugins(plugins)
        self._quantization = config.quantization
        self._model, self._tokenizer, name = load_part(config, self.rank, self.ranks)
        return name

    def join(self, port: int) -> None:
        """Join the other ranks, at rank 0's store."""
        self._group = join_ranks(self.rank, self.ranks, connect(port), self._model.device)

    def make_engine(
        self, methods: Sequence[MethodConfig], generation: GenerationConfig, config: EngineConfig
    ) -> None:
        """Make an engine in place of the one before."""
        if self._engine is not None:
            self._engine.reset()
        self._engine = Engine(
            self._model, self._tokenizer, methods, generation, config, self._quantization, self._group
        )

    def answer(self, prompts: Sequence[Prompt], threads: int) -> str:
        """Answer prompts as rank 0 does.

        Args:
            threads: of rank 0: products on a CPU are rounded by their number.

        Returns:
            The digest of the answers, which has to be that of rank 0.
        """
        assert self._engine is not None
        if self._model.device.type == "cpu" and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        faults.reach("engine.rank", rank=self.rank)
        digest = Digest()
        for index, answers in self._engine.stream(prompts):
            digest.add(index, answers)
        return digest.value

    def leave(self) -> None:
        """Leave the group, as rank 0 does."""
        if self._engine is not None:
            self._engine.reset()
        leave_ranks()


def main() -> None:
    """Arguments: file descriptor of the connection to rank 0, its process id, this rank, ranks in all."""
    descriptor, parent, rank, ranks = map(int, sys.argv[1:])
    os.set_inheritable(descriptor, False)
    _die_with(parent)
    connection = Connection(descriptor)
    asked: queue.SimpleQueue[tuple[str, tuple[Any, ...]]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, asked), daemon=True).start()
    own = Rank(rank, ranks)
    while True:
        method, arguments = asked.get()
        reply, is_fatal = None, False
        try:
            reply = getattr(own, method)(*arguments)
        except UserError as e:
            reply = e
        except BaseException as e:  # also what ends a process: rank 0 has to know
            traceback.print_exc()
            is_fatal = is_out_of_memory(e) or is_poisoned(e)
            reply = portable(RankError(f"rank {rank}: {type(e).__name__}: {e}"))
        connection.send((reply, is_fatal))


def _listen(connection: Connection, asked: queue.SimpleQueue[tuple[str, tuple[Any, ...]]]) -> None:
    """Pass on what rank 0 asks, until it is gone: then so is this process, whatever its main thread does."""
    while True:
        try:
            asked.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)
        except Exception:  # what cannot be unpickled here
            traceback.print_exc()
            os._exit(1)


def _die_with(parent: int) -> None:
    """End with the process that has started this one, also if this one hangs in a kernel meanwhile."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    main()
