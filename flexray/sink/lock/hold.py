"""Only one run at a time works in an output folder, also on storage without locks.

_lock-<n>.json    the process that holds the lock; rewritten every few seconds (heartbeat), removed at the end

A start reads all lock files. If all of them are dead, it creates the file with the next number; only one
process can do this (`lock_file.create`). Then it reads all lock files again. If there is any file except its
own and the dead ones, unchanged byte for byte, it removes its own file and starts over. Suppose that two
starts both get the lock. Each reads the files after creating its own, so the one that read last saw the
other's file. It can only have continued because it had found that file dead. A lock file is removed by its
owner, or by a later holder that had found it dead.

A lock file is dead if its process has ended, when it is a process of this machine. Otherwise it is dead if it
did not change while it was read many times during EXPIRY_SECONDS. So clocks of different machines are never
compared. A process can be suspended for longer than that and then continue. It then finds a higher number, or
its own file missing, and stops (`check`). Before it stops, both processes may have committed shards, like any
two writers (see `commit.py`): one manifest per shard is valid, so some rows are computed twice but exist
once. If the other run was started with --fresh and another configuration, a late commit has another
fingerprint, which readers report as damage instead of mixing the rows.
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
from flexray.sink.lock.file import Owner, create

BEAT_SECONDS = 5.0
EXPIRY_SECONDS = 60.0

_NAME = re.compile(r"_lock-(\d+)\.json")
_TRIES = 50  # a try fails if another process has taken or released the lock in the meantime


def is_lock(name: str) -> bool:
    """Whether this is the name of a lock file."""
    return _NAME.fullmatch(name) is not None


def read_locks(folder: OutputFolder) -> dict[str, bytes]:
    """The lock files that are there, by name. Raises OSError."""
    found = {name: folder.read_if_there(name) for name in folder.list() if is_lock(name)}
    return {name: data for name, data in found.items() if data is not None}


class HeldError(OutputError):
    """Another run holds the lock of the output folder."""


class LostError(OutputError):
    """This run has lost the lock of the output folder to another run."""


@contextlib.contextmanager
def hold(
    folder: OutputFolder,
    *,
    log: Callable[[str], None] = print,
    beat_seconds: float = BEAT_SECONDS,
    expiry_seconds: float = EXPIRY_SECONDS,
) -> Iterator[Lock]:
    """Hold the folder's lock. `log` is called with a line while it waits, and if it takes over a dead lock.

    Raises:
        HeldError: another run is alive in the folder. This is known after its next heartbeat.
        OutputError: the lock cannot be written.
    """
    lock = Lock(folder, log, beat_seconds, expiry_seconds)
    try:
        lock.acquire()
    except OSError as e:
        raise OutputError(f"{folder}: the run's lock cannot be acquired: {e}") from e
    try:
        yield lock
    finally:
        lock.release()


class Lock:
    """The lock of an output folder, held by this process after `acquire`."""

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
        self._seen = 0.0  # time at which this process was last known to hold the lock
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="run lock", daemon=True)
        self._mutex = threading.Lock()

    def acquire(self) -> None:
        """Acquire the lock, or raise HeldError."""
        for _ in range(_TRIES):
            there = self._files()
            all_dead = all(self._is_dead(number, there[number]) for number in sorted(there, reverse=True))
            if all_dead and self._take(max(there, default=0) + 1, there):
                for data in there.values():
                    self._log(f"{self._folder}: took over the lock of a dead run: {_who(Owner.parse(data))}")
                self._seen = time.monotonic()
                self._thread.start()
                return
            time.sleep(random.uniform(0, 0.2))  # otherwise two that gave way to each other do so again
        raise HeldError(f"{self._folder}: other starts keep acquiring and releasing its lock. Try again.")

    def check(self) -> None:
        """Raises LostError if another run has taken over the lock."""
        if time.monotonic() - self._seen > 2 * self._beat_seconds:  # was suspended: check the files now
            with contextlib.suppress(OSError):
                self._renew()
        if self._lost:
            raise LostError(
                f"{self._folder}: {self._lost}. This process wrote no heartbeat for "
                f"{self._expiry_seconds:.0f} s or more, as if it had been suspended. The shards that it has "
                "committed stay, and each row exists once."
            )

    def release(self) -> None:
        """Remove the lock file if this process still owns it."""
        self._ended.set()
        self._thread.join()
        try:
            self._look()  # without writing, because the disk may be full
            if not self._lost:
                self._folder.remove(_name(self._number))
        except OSError as e:
            self._log(f"{self._folder}: the run's lock cannot be removed; the next start takes it over: {e}")

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
        """Whether a lock file is dead. False if it was removed; then all files must be read again. Raises
        HeldError if its owner is alive."""
        name, owner = _name(number), Owner.parse(data)
        polls = math.ceil(self._expiry_seconds / self._poll_seconds)
        # Reads are counted instead of measuring time: this process may itself be suspended while it waits.
        for poll in range(polls):
            if owner is not None and owner.is_dead():
                return True
            if poll == 0:
                seconds = f"{self._expiry_seconds:.0f} s"
                self._log(f"{self._folder}: waiting up to {seconds} for a heartbeat of {_who(owner)}")
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
            with contextlib.suppress(OSError):  # the storage may recover, and then we see who holds the lock
                self._renew()

    def _renew(self) -> None:
        """Write a heartbeat, unless this process has lost the lock."""
        with self._mutex:
            self._look()
            if not self._lost:
                self._me = self._me.after_a_beat()
                self._folder.write_bytes(_name(self._number), self._me.to_bytes())
                self._seen = time.monotonic()

    def _look(self) -> None:
        """Check whether this process still holds the lock."""
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
            self._lost = f"its lock is now held by {_who(mine)}" if mine else "its lock file is missing"

    def _files(self) -> dict[int, bytes]:
        """All lock files by number."""
        found = read_locks(self._folder).items()
        return {int(match[1]): data for name, data in found if (match := _NAME.fullmatch(name))}

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):  # the next start finds it dead again
            self._folder.remove(name)

    def _refusal(self, owner: Owner | None) -> str:
        return (
            f"{self._folder}: another run is at work there: {_who(owner)}. Wait until it has ended, or stop "
            f"it. A lock without a heartbeat for {self._expiry_seconds:.0f} s is taken over."
        )


def _name(number: int) -> str:
    return f"_lock-{number}.json"


def _who(owner: Owner | None) -> str:
    return str(owner) if owner is not None else "an unknown process"
