"""The output's storage: written, read back, listed and cleaned up, with nothing left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from uuid import uuid4

from fsspec.implementations.local import LocalFileSystem

from flexray.config import RunConfig
from flexray.preflight.doctor.examine import Finding
from flexray.preflight.plan.machine import existing_folder
from flexray.sink import OutputFolder
from flexray.sink.folder import is_leftover
from flexray.storage import connect


def check_output(config: RunConfig | None) -> Iterator[Finding]:
    """A probe in the output folder, or in the one above where there is none yet. A run there, and a start,
    passes over it."""
    if config is None:
        return
    folder = OutputFolder(config.output)
    fs, path = connect(folder.url)
    is_local = isinstance(fs, LocalFileSystem)
    place = OutputFolder(str(existing_folder(path))) if is_local else folder
    was_there = fs.isdir(path)
    start = time.perf_counter()
    try:
        place.prepare()
        _probe(place)
    finally:
        if not is_local and not was_there and fs.isdir(path):  # not on object stores: they have no folders
            fs.rmdir(path)
    seconds = time.perf_counter() - start
    yield Finding("pass", f"{place}: a file was written, read, listed and removed ({seconds:.1f} s)")


def _probe(place: OutputFolder) -> None:
    """Raises OSError if a new file is not listed, or a removed one is."""
    name = f".probe-{uuid4().hex}"
    assert is_leftover(name)  # else a start would take it for a file of something else
    place.write_bytes(name, b"flexray")
    try:
        listed = name in place.list()
    finally:
        place.remove(name)
    if not listed:
        raise OSError(f"{place}: a file that was just written is not in the listing")
    if name in place.list():
        raise OSError(f"{place.where(name)}: is listed still, although it was removed")
