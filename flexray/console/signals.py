"""SIGTERM, Ctrl-C and the end of its terminal end a command cleanly: it releases what it holds, and its last
line says how far it got.

`timeout`, systemd and Kubernetes send SIGTERM. So does `ray job stop`, which kills three seconds later.
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

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
GRACE_SECONDS = 25.0
"""After this the process ends in any case: a storage that does not answer must not hold it up."""


class Stopped(BaseException):
    """A signal that ends the command. Its notes say how far it got. Not an Exception, so that no code catches
    it."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum

    def __str__(self) -> str:
        name = signal.Signals(self.signum).name
        return ": ".join([f"stopped by {name}", *getattr(self, "__notes__", ())])

    @property
    def exit_code(self) -> int:
        """The exit code that a shell reports for a process ended by this signal."""
        return 128 + self.signum


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within this block the first signal is raised as a Stopped, which becomes the last line on standard
    error, and the process ends. A second signal ends it at once."""
    if threading.current_thread() is not threading.main_thread():  # only that one receives signals
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
        if handler.stopped is not None:  # a library has turned it into another exception
            handler.end(handler.stopped)
        raise
    finally:
        handler.forget(before)


@contextlib.contextmanager
def ending_by(finish: Callable[[Stopped], None]) -> Iterator[None]:
    """Within this block a signal is not raised, because the code could not handle that: `finish` is called,
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
        handler.listen()  # Ray's core has installed a handler of its own


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
            if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:  # nohup ignores it
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
        # else the last lines on the screen would be those of Ray's core about the end of the process
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
        """Print the last line and end the process."""
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        with contextlib.suppress(OSError):
            # below a progress bar, which hides the cursor
            below = "\x1b[?25h\n" if os.isatty(self._screen) else ""
            os.write(self._screen, f"{below}{stopped}\n".encode())
        os._exit(stopped.exit_code)
