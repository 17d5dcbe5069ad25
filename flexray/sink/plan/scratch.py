"""What the steps of planning hand on to each other: tables in memory, or in files below the output folder.

OUT/_scratch/<random>/<name>    tables one after the other, as Arrow streams

Only the start that wrote a file reads it. Its folder is removed when the start ends, or by the next start.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol
from uuid import uuid4

import pyarrow as pa

from flexray.config.fault_injection import reach
from flexray.errors import OutputError
from flexray.sink.folder import OutputFolder
from flexray.sink.records import SCRATCH_FOLDER

READERS = 8
"""Slices that are read at the same time: object stores are slow but answer many requests at once."""
_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")


class Slice(NamedTuple):
    """Where a table is."""

    file: str
    start: int
    stop: int


class Scratch(Protocol):
    """Keeps tables until the plan is written. Can be sent to the processes that use it."""

    def put(self, name: str, tables: Sequence[pa.Table]) -> list[Slice]:
        """Keep some tables together; returns where each is. Raises OSError."""
        ...

    def get(self, slices: Sequence[Slice]) -> list[pa.Table]:
        """Tables that were kept. Raises OSError."""
        ...


@dataclass(frozen=True, slots=True)
class MemoryScratch:
    """Tables in this process."""

    _kept: dict[str, Sequence[pa.Table]] = field(default_factory=dict)

    def put(self, name: str, tables: Sequence[pa.Table]) -> list[Slice]:
        """Keep some tables."""
        self._kept[name] = tables
        return [Slice(name, place, place + 1) for place in range(len(tables))]

    def get(self, slices: Sequence[Slice]) -> list[pa.Table]:
        """Tables that were kept."""
        return [self._kept[where.file][where.start] for where in slices]


@dataclass(frozen=True, slots=True)
class FolderScratch:
    """Files below an output folder, which all processes see. A file has a name of its own for each attempt,
    as a task may be repeated while its first attempt is still at work."""

    folder: OutputFolder
    place: str

    @classmethod
    def new(cls, folder: OutputFolder) -> FolderScratch:
        """An empty one."""
        return cls(folder, f"{SCRATCH_FOLDER}/{uuid4().hex}")

    def put(self, name: str, tables: Sequence[pa.Table]) -> list[Slice]:
        """Write some tables into a file."""
        streams = [_to_bytes(table) for table in tables]
        file = f"{self.place}/{name}-{uuid4().hex[:8]}.arrows"
        self.folder.write_bytes(file, b"".join(streams))
        reach("plan.scratch", name=name)
        found, start = [], 0
        for stream in streams:
            found.append(Slice(file, start, start + len(stream)))
            start += len(stream)
        return found

    def get(self, slices: Sequence[Slice]) -> list[pa.Table]:
        """Read tables, a request each."""
        if len(slices) < 2:
            return [self._read(where) for where in slices]
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(self._read, slices))

    def _read(self, where: Slice) -> pa.Table:
        data = self.folder.read_range(*where)
        try:
            return pa.ipc.open_stream(pa.py_buffer(data)).read_all()
        except pa.ArrowInvalid as e:
            raise OSError(
                f"{self.folder.where(where.file)}: was changed while the run was planned: {e}"
            ) from e


def clear_scratch(folder: OutputFolder) -> None:
    """Remove what this start, or one that died, has kept. Needs the folder's lock. Raises OutputError."""
    try:
        folder.remove_folder(SCRATCH_FOLDER)
    except OSError as e:
        raise OutputError(f"{folder.where(SCRATCH_FOLDER)}: cannot be removed: {e}") from e


def _to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())
