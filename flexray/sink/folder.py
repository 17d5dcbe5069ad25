"""The output folder: reads and writes whole files on a local path or any fsspec URL."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow.fs
from fsspec.implementations.local import LocalFileSystem

from flexray.config.fault_injection import reach
from flexray.errors import OutputError
from flexray.storage import (
    StorageError,
    connect,
    describe,
    read_range,
    redact,
    retry,
    translate,
    write_file,
)

# Stores without folders: file names may contain slashes, and creating a "folder" could create a bucket.
_FLAT_PROTOCOLS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "memory"}
_START_PATIENCE = 15.0  # seconds of retries at a start: short, because no work is lost and a user may wait
_PROBE = ".probe-"
_TEMPORARY = ".tmp"
_SYSTEM_NAMES = {"Thumbs.db", "desktop.ini", "lost+found"}


def is_leftover(name: str) -> bool:
    """Whether this is the name of a probe file or of an unfinished write."""
    return name.startswith(_PROBE) or (name.startswith(".") and name.endswith(_TEMPORARY))


def is_systems(name: str) -> bool:
    """Whether a name is hidden, or one that file systems and desktops create in any folder."""
    return name.startswith(".") or name in _SYSTEM_NAMES


class OutputFolder:
    """A folder given by path or URL. The methods take file names relative to it, with `/`.

    Storage credentials and endpoints come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...) or
    from fsspec's configuration, never from flexray's. Temporary faults are retried (`storage.retry`); a
    method raises OSError if the retries have failed. It is pickled as its URL and can be sent to another
    process.

    Raises:
        OutputError: no file system is known, or installed, for the URL.
    """

    def __init__(self, url: str) -> None:
        if not url:
            raise OutputError("the output folder has no name. Give a local path or a URL.")
        try:
            self._fs, self._root = connect(url)
        except Exception as e:  # each file system has its own exceptions
            raise OutputError(
                f"{redact(url)}: cannot be used as an output folder: {describe(e, url)} Give a local path or "
                "a URL of an installed fsspec file system, such as s3://bucket/folder."
            ) from e
        self._local = isinstance(self._fs, LocalFileSystem)
        # absolute, because a relative path could mean another folder in another process
        self.url = self._root if self._local else url

    def __str__(self) -> str:
        return str(redact(self.url))

    def __repr__(self) -> str:
        return f"OutputFolder({str(self)!r})"

    def __reduce__(self) -> tuple[type[OutputFolder], tuple[str]]:
        return OutputFolder, (self.url,)

    def where(self, name: str) -> str:
        """The file's full path or URL, for messages."""
        return str(redact(self.url_of(name)))

    def prepare(self) -> None:
        """Create the folder, and check that a file in it can be written, read, listed and deleted.

        Raises:
            OutputError: this failed; the message names the path and the reason.
        """
        try:
            self._try_out()
        except OSError as e:
            advice = "Give another output folder, or make this one writable."
            if isinstance(e, StorageError) and e.advice:
                advice = e.advice
            raise OutputError(
                f"{self}: the output folder cannot be created or written: {_reason(e)}. {advice}"
            ) from e

    def _try_out(self) -> None:
        probe = f"{_PROBE}{uuid4().hex}"
        self._make_folder(self._root)
        self._write(probe, b"flexray", patience=_START_PATIENCE)
        if self.read_bytes(probe) != b"flexray":
            raise OSError("a file that was just written reads back differently")
        if probe not in self.list():
            raise OSError("a file that was just written is not in the listing")
        self.remove(probe)

    def read_bytes(self, name: str) -> bytes:
        """The whole file. Raises FileNotFoundError, or another OSError if it cannot be read."""
        path = self._path(name)
        return retry(self.url_of(name), lambda: bytes(self._fs.cat_file(path)))

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of a file. Raises OSError as `read_bytes`."""
        return read_range(self.url_of(name), start, stop)

    def read_if_there(self, name: str) -> bytes | None:
        """The whole file, or None if it does not exist. Raises OSError if it cannot be read."""
        try:
            return self.read_bytes(name)
        except FileNotFoundError:
            return None

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a whole file. A reader sees the old file or the new one, never a part of it.

        Raises:
            OSError: it cannot be written. Then the name has its old content (or no file), or the new content:
                if a connection breaks after the last byte, this is unknown.
        """
        reach("sink.write.before", name=name)
        self._write(name, data)
        reach("sink.write.after", name=name)

    @property
    def local_path(self) -> str | None:
        """The folder's path, if it is on this machine."""
        return self._root if self._local else None

    def put_file(self, local: Path, name: str) -> None:
        """Move a whole file here, however large. Raises OSError as `write_bytes`.

        Args:
            local: a file on this machine, on the same file system as a local folder.
        """
        path = self._path(name)
        self._make_folder(path.rpartition("/")[0])
        if self._local:
            with local.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(local, path)
            _sync_folder(path.rpartition("/")[0] or "/")
        else:
            retry(self.url_of(name), lambda: self._fs.put_file(str(local), path))

    def arrow_files(self, names: Iterable[str]) -> tuple[pyarrow.fs.FileSystem, list[str]]:
        """Files as pyarrow's readers take them: a file system, and their paths in it."""
        handler = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(self._fs))
        return handler, [self._path(name) for name in names]

    def remove(self, name: str) -> None:
        """Delete one file. Raises OSError if it cannot be deleted."""
        path = self._path(name)
        retry(self.url_of(name), lambda: self._fs.rm_file(path))

    def remove_folder(self, name: str) -> None:
        """Delete a folder with all that is in it, if it is there. Raises OSError if this fails."""
        path = self._path(name)
        self._fs.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            retry(self.url_of(name), lambda: self._fs.rm(path, recursive=True))

    def list(self, name: str = "") -> list[str]:
        """The sorted names of the files and folders in a folder; empty if the folder does not exist.

        Raises:
            OSError: it cannot be listed, or is a file.
        """
        return sorted(self._entries(name))

    def sizes(self, name: str) -> dict[str, int | None]:
        """The sorted names of the files in a folder, with their sizes in bytes; None if the storage does not
        know a size.

        Raises:
            OSError: as `list`.
        """
        entries = sorted(self._entries(name).items())
        return {inner: entry.get("size") for inner, entry in entries if entry["type"] != "directory"}

    def _entries(self, name: str) -> dict[str, dict[str, Any]]:
        path = self._path(name)
        self._fs.invalidate_cache()  # other processes write here too
        try:
            entries = retry(self.url_of(name), lambda: self._fs.ls(path, detail=True))
        except FileNotFoundError:
            return {}
        for entry in entries:
            # S3 lists a manually created folder as an empty file with the folder's name and a slash.
            if _same(entry["name"], path) and entry["type"] == "file" and (self._local or entry["size"]):
                raise NotADirectoryError(f"{self.where(name)} is a file, not a folder")
        return {
            entry["name"].rstrip("/").rpartition("/")[2]: entry
            for entry in entries
            if not _same(entry["name"], path)
        }

    def _write(self, name: str, data: bytes, patience: float | None = None) -> None:
        path = self._path(name)
        self._make_folder(path.rpartition("/")[0])
        if self._local:
            try:
                _write_local(path, data, name)
            except OSError as e:  # the error of a failed write does not name the file
                raise translate(e, self.url_of(name)) from e
        else:
            # On object stores a put is atomic, while a rename is a copy and a delete. A put can be repeated
            # if its response is lost: it writes the same bytes under the same name.
            retry(self.url_of(name), lambda: write_file(self._fs, path, data), patience=patience)

    def url_of(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}" if name else self.url

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}" if name else self._root

    def _make_folder(self, path: str) -> None:
        protocols = {self._fs.protocol} if isinstance(self._fs.protocol, str) else set(self._fs.protocol)
        if not protocols & _FLAT_PROTOCOLS:
            retry(self.url, lambda: self._fs.makedirs(path, exist_ok=True))


def split_path(path: str) -> tuple[OutputFolder, str]:
    """The folder of a file, and the file's name in it. Raises OutputError as `OutputFolder`."""
    parent, slash, name = path.rpartition("/")
    return OutputFolder(parent + slash or "."), name


def _write_local(path: str, data: bytes, label: str) -> None:
    parent, _, name = path.rpartition("/")
    parent = parent or "/"
    temporary = f"{parent}/.{name}.{uuid4().hex}{_TEMPORARY}"
    try:
        with open(temporary, "xb") as stream:
            half = len(data) // 2
            stream.write(data[:half])
            stream.flush()
            reach("sink.write.during", name=label)
            stream.write(data[half:])
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    _sync_folder(parent)


def _sync_folder(path: str) -> None:
    """Otherwise a power failure may lose a file's new name."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _same(a: str, b: str) -> bool:
    return a.strip("/") == b.strip("/")


def _reason(error: OSError) -> str:
    text = error.reason if isinstance(error, StorageError) else error.strerror or str(error)
    return str(redact(text)).strip().rstrip(".") or type(error).__name__
