"""One run at a time in an output folder, on storage that has no locks.

_lock-<n>.json    who holds the lock; rewritten every few seconds as a sign of life, removed at the end

A start looks at all lock files. If each is dead it creates the next number, which only one can do
(`lock_file.create`), and looks again: if anything is there but its own file and those that it found
dead, byte for byte as they were, it removes its file and begins anew. So of two starts that both come
through, whoever looked last saw the other's file, as each looks after it has created; then it had
found the other dead. A file is removed by its owner, or by a holder who had found it dead.

Dead is a file whose process has ended, if it was one of this machine, else one that did not change
while it was read many times over EXPIRY_SECONDS: no two machines' clocks are compared. A process can
sleep that long and wake. It then finds a higher number, or its own file gone, and stops (`check`). It
may have gone on for a moment; shards of both are then committed as by any two writers (see
`commit.py`): of each one manifest is valid, so rows may be computed twice but are there once. If the
other started afresh with another configuration, a late commit bears another fingerprint, which readers
refuse and do not mix in.
"""

from __future__ import annotations

import contextlib
import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterator

from flexray.errors import OutputError
from flexray.sink.folder import OutputFolder
from flexray.sink.lock_file import Owner, create

BEAT_SECONDS = 5.0
EXPIRY_SECONDS = 60.0

_NAME = re.compile(r"_lock-(\d+)\.json")
_TRIES = 50  # each other try finds a lock that has just been taken or released


def is_lock(name: str) -> bool:
    """Whether a file name is that of a lock."""
    return _NAME.fullmatch(name) is not None


class HeldError(OutputError):
    """Another run holds the output folder."""


class LostError(OutputError):
    """This run held the output folder, and another one holds it now."""


@contextlib.contextmanager
def hold(
    folder: OutputFolder,
    *,
    log: Callable[[str], None] = print,
    beat_seconds: float = BEAT_SECONDS,
    expiry_seconds: float = EXPIRY_SECONDS,
) -> Iterator[Lock]:
    """Hold the folder's lock; `log` is told why it takes time, or whose lock is taken over.

    Raises:
        HeldError: another run is alive there. Known after its next sign of life.
        OutputError: the lock cannot be written.
    """
    lock = Lock(folder, log, beat_seconds, expiry_seconds)
    try:
        lock.acquire()
    except OSError as e:
        raise OutputError(f"{folder}: the run's lock cannot be taken: {e}") from e
    try:
        yield lock
    finally:
        lock.release()


class Lock:
    """A lock that this process holds."""

    def __init__(
        self, folder: OutputFolder, log: Callable[[str], None], beat_seconds: float, expiry_seconds: float
    ) -> None:
        self._folder = folder
        self._log = log
        self._beat_seconds = beat_seconds
        self._expiry_seconds = expiry_seconds
        self._me = Owner.me()
        self._number = 0
        self._lost = ""
        self._seen = 0.0  # when it was last known to be ours
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="run lock", daemon=True)
        self._mutex = threading.Lock()

    def acquire(self) -> None:
        """Take the lock, or raise HeldError."""
        for _ in range(_TRIES):
            there = self._files()
            all_dead = all(self._is_dead(number, there[number]) for number in sorted(there, reverse=True))
            if all_dead and self._take(max(there, default=0) + 1, there):
                for data in there.values():
                    self._log(f"{self._folder}: took over the lock of a dead run: {_who(Owner.parse(data))}")
                self._seen = time.monotonic()
                self._thread.start()
                return
            time.sleep(random.uniform(0, 0.2))  # else two who stepped back for each other do so again
        raise HeldError(f"{self._folder}: other starts take and release its lock all the time. Try again.")

    def check(self) -> None:
        """Raises LostError if another run holds the folder by now."""
        if time.monotonic() - self._seen > 2 * self._beat_seconds:  # we slept: do not wait for the next beat
            with contextlib.suppress(OSError):
                self._renew()
        if self._lost:
            raise LostError(
                f"{self._folder}: {self._lost}. This process gave no sign of life for "
                f"{self._expiry_seconds:.0f} s or more, as if it had been suspended. What it has committed "
                "stays, each row once."
            )

    def release(self) -> None:
        """Remove the lock file if it still is this process's."""
        self._ended.set()
        self._thread.join()
        try:
            self._look()  # and write nothing: the disk may be full
            if not self._lost:
                self._folder.remove(_name(self._number))
        except OSError as e:
            self._log(f"{self._folder}: the run's lock cannot be removed, the next start finds it dead: {e}")

    def _take(self, number: int, dead: dict[int, bytes]) -> bool:
        name, mine = _name(number), self._me.to_bytes()
        if not create(self._folder, name, mine):
            return False
        there = self._files()
        if there.pop(number, None) != mine:
            return False
        if not there.items() <= dead.items():
            self._folder.remove(name)
            return False
        self._number = number
        for number in there:
            self._remove(_name(number))
        return True

    def _is_dead(self, number: int, data: bytes) -> bool:
        """False: look again, the file is gone. Raises HeldError if its owner is alive."""
        name, owner = _name(number), Owner.parse(data)
        polls = math.ceil(self._expiry_seconds / self._poll_seconds)
        # Counted, not timed: who slept himself has not watched.
        for poll in range(polls):
            if owner is not None and owner.is_dead():
                return True
            if poll == 0:
                seconds = f"{self._expiry_seconds:.0f} s"
                self._log(f"{self._folder}: waits up to {seconds} for a sign of life of {_who(owner)}")
            time.sleep(self._poll_seconds)
            now = self._folder.read_if_there(name)
            if now is None:
                return False
            if now != data:
                raise HeldError(self._refusal(Owner.parse(now)))
        return True

    @property
    def _poll_seconds(self) -> float:
        return min(1.0, self._beat_seconds / 2)

    def _beat(self) -> None:
        while not self._lost and not self._ended.wait(self._beat_seconds):
            with contextlib.suppress(OSError):  # the store may come back, and then we see whose it is
                self._renew()

    def _renew(self) -> None:
        """Give a sign of life, unless the lock is no longer ours."""
        with self._mutex:
            self._look()
            if not self._lost:
                self._me = self._me.after_a_beat()
                self._folder.write_bytes(_name(self._number), self._me.to_bytes())
                self._seen = time.monotonic()

    def _look(self) -> None:
        """See whose the lock is by now."""
        if self._lost:
            return
        there = self._files()
        higher = [number for number in there if number > self._number]
        mine = Owner.parse(there.get(self._number, b""))
        is_ours = mine is not None and mine.token == self._me.token
        if higher:
            self._lost = f"its lock was taken over by {_who(Owner.parse(there[max(higher)]))}"
            if is_ours:
                self._remove(_name(self._number))
        elif not is_ours:
            self._lost = f"its lock was given to {_who(mine)}" if mine else "its lock file is gone"

    def _files(self) -> dict[int, bytes]:
        """All lock files by number."""
        numbers = [int(match[1]) for name in self._folder.list() if (match := _NAME.fullmatch(name))]
        files = {number: self._folder.read_if_there(_name(number)) for number in numbers}
        return {number: data for number, data in files.items() if data is not None}

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):  # who comes next finds it dead again
            self._folder.remove(name)

    def _refusal(self, owner: Owner | None) -> str:
        return (
            f"{self._folder}: another run is at work there: {_who(owner)}. Wait until it has ended, or stop "
            f"it; a lock without a sign of life for {self._expiry_seconds:.0f} s is taken over."
        )


def _name(number: int) -> str:
    return f"_lock-{number}.json"


def _who(owner: Owner | None) -> str:
    return str(owner) if owner is not None else "an unknown process"
