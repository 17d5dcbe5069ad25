"""This machine's memory, and write access to its folders."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path


def ram_bytes() -> int:
    """Memory of this machine, or of this process's container, in bytes."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of cgroup versions 2 and 1
        try:
            return min(total, int((Path("/sys/fs/cgroup") / name).read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return total


def existing_folder(path: str | Path) -> Path:
    """The folder itself, or the nearest existing one above it. Raises OSError if a file is in the way,
    or a name is too long."""
    at = Path(os.path.abspath(path))
    missing = []
    while not os.path.lexists(at):
        missing.append(at)
        at = at.parent
    if not at.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "a file is in the way", str(at))
    for folder in missing:
        if len(os.fsencode(folder.name)) > os.pathconf(at, "PC_NAME_MAX"):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(folder))
    return at


def check_writable(path: str | Path) -> None:
    """Check that a folder can be made or written to, with a temporary file of which nothing remains.

    Raises:
        OSError: it cannot be written to.
    """
    with tempfile.TemporaryFile(dir=existing_folder(path)):
        pass
