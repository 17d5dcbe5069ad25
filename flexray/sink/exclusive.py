"""Create a file that nobody else has created: the one step of the run's lock that must be atomic."""

from __future__ import annotations

import os
import time

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from flexray.sink.folder import OutputFolder

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

    Raises:
        OSError: it cannot be created.
    """
    fs, root = url_to_fs(folder.url)
    path = f"{root.rstrip('/')}/{name}"
    if isinstance(fs, LocalFileSystem):
        return _create_local(path, data)
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    for _ in range(2):  # S3 also refuses while another's put, or removal, is on its way
        refusal = _put(fs, path, data)
        if refusal is None:
            break
        if (found := folder.read_if_there(name)) is not None:
            return found == data  # ours: the answer was lost, and the client had asked again
    else:
        raise OSError(f"{folder.where(name)}: cannot be created: {refusal}") from refusal
    if not (protocols & _CONDITIONAL and _put(fs, path, data)):
        time.sleep(SETTLE_SECONDS)
    return folder.read_if_there(name) == data


def _create_local(path: str, data: bytes) -> bool:
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    with open(file, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    return True


def _put(fs: AbstractFileSystem, path: str, data: bytes) -> Exception | None:
    """Write if nothing is there. What a refusal is called differs from store to store."""
    try:
        fs.pipe_file(path, data, mode="create")
    except Exception as e:
        return e
    return None
