"""Create a file that nobody else has created: the one step of the run's lock that must be atomic."""

from __future__ import annotations

import os
import time

from fsspec.implementations.local import LocalFileSystem

from flexray.sink.folder import OutputFolder
from flexray.storage import connect, diagnose, retry, translate, write_file

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
