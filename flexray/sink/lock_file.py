"""The lock's file: which process it names, whether that is certainly dead, and how only one can create it."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import socket
import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from fsspec.implementations.local import LocalFileSystem

from flexray.sink.folder import OutputFolder
from flexray.storage import connect, diagnose, redact, retry, translate, write_file

# Their clients send the condition along with the write ("If-None-Match: *" and its like).
_CONDITIONAL = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "memory"}
SETTLE_SECONDS = 5.0


def create(folder: OutputFolder, name: str, data: bytes) -> bool:
    """Create the file with these bytes, which nobody else writes; False if it was there before.

    Locally by O_EXCL (NFS knows it since version 3; a reader may see the file before its bytes). On
    object stores by a conditional put. Some servers ignore the condition, so it is tried: a second
    put must be refused. Where it is not, and on any other store, the file is written if there is
    none, and after SETTLE_SECONDS the bytes that are there decide: the last writer has won. That is
    right unless a writer takes longer than this from its look to its write.

    A put whose answer was lost is sent again, and may be refused for its own sake: then, too, the bytes
    that are there decide.

    Raises:
        OSError: it cannot be created.
    """
    fs, root = connect(folder.url)
    path = f"{root.rstrip('/')}/{name}"
    if isinstance(fs, LocalFileSystem):
        return _create_local(path, data)

    def put() -> bool:
        """Write if nothing is there; False if something is."""
        try:
            write_file(fs, path, data, replace=False)
        except Exception as e:  # what a refusal is called differs from store to store
            if diagnose(e, folder.url).kind != "exists":
                raise
            return False
        return True

    url = f"{folder.url.rstrip('/')}/{name}"
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    conditional = bool(protocols & _CONDITIONAL)
    for _ in range(2):  # what was in the way may have been removed since
        refused = not retry(url, put)
        found = folder.read_if_there(name) if refused else data
        if found is not None:
            break
    else:
        raise OSError(f"{folder.where(name)}: cannot be created: refused, though no such file is there")
    if found != data:
        return False
    if not (conditional and (refused or not retry(url, put))):
        time.sleep(SETTLE_SECONDS)
    return folder.read_if_there(name) == data


def _create_local(path: str, data: bytes) -> bool:
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    except OSError as e:
        raise translate(e, path) from e
    try:
        with open(file, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as e:  # no space, say: an empty file would keep others waiting
        os.unlink(path)
        raise translate(e, path) from e
    return True


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
    """In the machine's ticks; DEAD for no process, or a zombie; "" if unknown."""
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
