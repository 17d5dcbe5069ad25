"""SIGTERM and Ctrl-C end a command in order: what it holds is released, and its last line says how far it is.

`timeout`, systemd and Kubernetes send SIGTERM; `ray job stop` does, and kills three seconds later.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE_SECONDS = 25.0
"""Then it is over: a storage that does not answer must not keep a process that is to end."""


class Stopped(BaseException):
    """The command is to end. Its notes say how far it was; no Exception, so that nothing goes on after it."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum

    def __str__(self) -> str:
        name = signal.Signals(self.signum).name
        return ": ".join([f"stopped by {name}", *getattr(self, "__notes__", ())])

    @property
    def exit_code(self) -> int:
        """As a shell gives it of a process that a signal has ended."""
        return 128 + self.signum


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """The first signal is raised in here as a Stopped. It becomes the last line on standard error, and the
    process ends. A second signal ends it at once."""
    if threading.current_thread() is not threading.main_thread():  # only that one is told of signals
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    handler = _Handler()
    handler.listen()
    try:
        yield
    except BaseException as e:
        if isinstance(e, Stopped):
            handler.end(e)
        if handler.stopped is not None:  # what a library has made of it
            handler.end(handler.stopped)
        raise
    finally:
        handler.forget(before)


@contextlib.contextmanager
def ending_by(finish: Callable[[Stopped], None]) -> Iterator[None]:
    """A signal that comes in here is not raised, as what runs in here would not stand it: `finish` is called,
    and the process ends."""
    handler = _Handler.current
    if handler is None:
        yield
        return
    handler.finish = finish
    try:
        yield
    finally:
        handler.finish = None
        handler.listen()  # Ray's core has put one of its own before it


class _Handler:
    current: _Handler | None = None

    def __init__(self) -> None:
        self.stopped: Stopped | None = None
        self.finish: Callable[[Stopped], None] | None = None
        self._outer = _Handler.current
        self._screen = os.dup(2)

    def listen(self) -> None:
        _Handler.current = self
        for signum in SIGNALS:
            signal.signal(signum, self._handle)

    def forget(self, before: dict[signal.Signals, Any]) -> None:
        _Handler.current = self._outer
        for signum, handler in before.items():
            signal.signal(signum, handler)
        os.close(self._screen)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.stopped is not None:
            self.end(self.stopped)
        self.stopped = Stopped(signum)
        # what Ray's core has to say of a process that ends would be the last on the screen
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        timer = threading.Timer(GRACE_SECONDS, self.end, [self.stopped])
        timer.daemon = True
        timer.start()
        if self.finish is None:
            raise self.stopped
        with contextlib.suppress(Exception):
            self.finish(self.stopped)
        self.end(self.stopped)

    def end(self, stopped: Stopped) -> NoReturn:
        """Say the last line, and no word more."""
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        with contextlib.suppress(OSError):
            bar = (
                "\x1b[?25h\n" if os.isatty(self._screen) else ""
            )  # below a progress bar, which hides the cursor
            os.write(self._screen, f"{bar}{stopped}\n".encode())
        os._exit(stopped.exit_code)
