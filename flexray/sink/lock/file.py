"""The lock file: the process that it names, whether that process has ended, and how only one process can
create it."""

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

# The clients of these stores can write on condition that the file does not exist ("If-None-Match: *").
_CONDITIONAL = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "memory"}
SETTLE_SECONDS = 5.0


def create(folder: OutputFolder, name: str, data: bytes) -> bool:
    """Create the file with these bytes, which no other process writes; False if it already existed.

    On a local file system, the file is opened with O_EXCL (NFS supports this since version 3; a reader may
    see the file before its bytes). On object stores, it is written with a conditional put. Some servers
    ignore the condition, so this is tested: a second put must be refused. If it is not refused, and on any
    other store, the file is written if it does not exist, and read again after SETTLE_SECONDS: the last
    writer wins. This is correct unless a writer needs longer than this between its check and its write.

    If the response to a put is lost, the put is repeated, and may be refused because the first one succeeded.
    Then, too, the file's bytes decide who has created it.

    Raises:
        OSError: it cannot be created.
    """
    fs, root = connect(folder.url)
    path = f"{root.rstrip('/')}/{name}"
    if isinstance(fs, LocalFileSystem):
        return _create_local(path, data)

    def put() -> bool:
        """Write the file if it does not exist; False if it does."""
        try:
            write_file(fs, path, data, replace=False)
        except Exception as e:  # each store has its own exception for a refusal
            if diagnose(e, folder.url).kind != "exists":
                raise
            return False
        return True

    url = f"{folder.url.rstrip('/')}/{name}"
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    conditional = bool(protocols & _CONDITIONAL)
    for _ in range(2):  # the existing file may have been removed since the refusal
        refused = not retry(url, put)
        found = folder.read_if_there(name) if refused else data
        if found is not None:
            break
    else:
        raise OSError(f"{folder.where(name)}: cannot be created: refused, although it does not exist")
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
    except OSError as e:  # for example a full disk; other processes would have to wait for an empty file
        os.unlink(path)
        raise translate(e, path) from e
    return True


DEAD = "dead"


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """A process that holds, or held, the lock. The times are only for users: clocks of two machines
    differ."""

    token: str
    """A random text, different for each start."""
    host: str
    machine: str
    """The same for processes that see each other's pids; "" if unknown."""
    pid: int
    born: str
    """The start time of the process in clock ticks, because pids are reused; "" if unknown."""
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
        """The owner that a lock file names; None if it names none, such as a file that is being written."""
        try:
            tree = json.loads(data)
            return cls(**{field.name: tree[field.name] for field in fields(cls)})
        except (ValueError, TypeError, KeyError):
            return None

    def to_bytes(self) -> bytes:
        """The lock file's content, as indented JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False).encode() + b"\n"

    def after_a_beat(self) -> Owner:
        """The same owner, with a heartbeat now."""
        return replace(self, heartbeat=_now(), beats=self.beats + 1)

    def is_dead(self) -> bool:
        """Whether its process has certainly ended. False if this is not known on this machine."""
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
    # Several containers may have the same host name, and a pid is valid in its namespace only.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _born(pid: int) -> str:
    """The start time of a process in clock ticks; DEAD if it does not exist or is a zombie; "" if unknown."""
    try:
        # the second field is the command's name, which may contain spaces and parentheses
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return DEAD if state in "ZX" else numbers[18]
    except (OSError, ValueError):
        return "" if _exists(pid) else DEAD


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # a process of another user, which /proc may hide
        pass
    return True


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return str(os.getuid())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
