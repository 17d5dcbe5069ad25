"""Who holds a run's lock, as the lock file says it, and whether that process is certainly dead."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import socket
import sys
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from flexray.storage import redact

DEAD = "dead"


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """A process that holds, or held, the lock. The times are for people: clocks of two machines differ."""

    token: str
    """Random: no two starts have the same one."""
    host: str
    machine: str
    """The same for processes that see each other's pids; "" where that cannot be told."""
    pid: int
    born: str
    """When the process began, in the machine's ticks: a pid is used again; "" where that is unknown."""
    user: str
    command: str
    started: str
    heartbeat: str
    beats: int = 0

    @classmethod
    def me(cls) -> Owner:
        """This process, with a new token."""
        return cls(
            token=uuid4().hex,
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            born=_born(os.getpid()),
            user=_user(),
            command=shlex.join(redact(sys.argv)),
            started=_now(),
            heartbeat=_now(),
        )

    @classmethod
    def parse(cls, data: bytes) -> Owner | None:
        """None for what is no owner, such as a file that is just being written."""
        try:
            tree = json.loads(data)
            return cls(**{field.name: tree[field.name] for field in fields(cls)})
        except (ValueError, TypeError, KeyError):
            return None

    def to_bytes(self) -> bytes:
        """JSON for people and programs."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False).encode() + b"\n"

    def after_a_beat(self) -> Owner:
        """The same, seen alive now."""
        return replace(self, heartbeat=_now(), beats=self.beats + 1)

    def is_dead(self) -> bool:
        """Whether its process has certainly ended. False if that cannot be told from here."""
        if not self.machine or self.machine != _machine():
            return False
        born = _born(self.pid)
        return born == DEAD or bool(born and self.born and born != self.born)

    def __str__(self) -> str:
        return (
            f"host {self.host}, process {self.pid} of user {self.user}, started {self.started}, last "
            f"heartbeat {self.heartbeat} (its clock), command: {self.command}"
        )


def _machine() -> str:
    # A host name may be that of several containers, and a pid means something in its namespace only.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _born(pid: int) -> str:
    """In the machine's ticks; DEAD for no process, or one that only waits to be buried; "" if unknown."""
    try:
        # the second field is the command's name, which may hold blanks and parentheses
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return DEAD if state in "ZX" else numbers[18]
    except (OSError, ValueError):
        return "" if _exists(pid) else DEAD


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's, which /proc may hide
        pass
    return True


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return str(os.getuid())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
