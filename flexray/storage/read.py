"""Read files in chunks: a broken connection costs one chunk, and never shortens a file."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, cast

from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from flexray.storage.access import connect, retry
from flexray.storage.error_messages import TruncatedError

CHUNK = 8 * 2**20


def open_file(url: str, chunk: int | None = None) -> BinaryIO:
    """Open a path or URL as a binary file, which is seekable if the storage knows its size.

    Args:
        chunk: bytes that a storage is asked for beyond those that are read; few for who reads a small part.
            None: CHUNK.

    Raises:
        OSError: it cannot be opened; later, that it cannot be read.
    """
    chunk = chunk or CHUNK
    fs, name = retry(url, lambda: connect(url))
    if isinstance(fs, LocalFileSystem):
        return cast(BinaryIO, fs.open(name, "rb"))
    file = retry(url, lambda: fs.open(name, "rb", block_size=chunk))
    size = getattr(file, "size", None)
    if size is None and file.seekable():
        size = retry(url, lambda: fs.info(name)["size"])  # a member of a tar archive does not know its size
    if size is None:
        return cast(BinaryIO, file)  # it cannot seek, so a read cannot be repeated
    return io.BufferedReader(_RetryingFile(url, fs, file, size), min(chunk, 2**20))


def read_range(url: str, start: int, end: int) -> bytes:
    """Bytes [start, end) of a file, in one request; fewer only if the file ends before.

    Raises:
        OSError: it cannot be read.
    """
    fs, name = retry(url, lambda: connect(url))

    def read() -> bytes:
        stop = min(end, fs.size(name))  # S3 refuses a range that begins after the end
        # by keyword: the second parameter of s3fs is the version
        data = bytes(fs.cat_file(name, start=start, end=stop)) if start < stop else b""
        _check(data, max(stop - start, 0))
        return data

    return retry(url, read)


class _RetryingFile(io.RawIOBase):
    """A file of fsspec that reads as much as it is asked for, or raises. It keeps the file system alive,
    because an archive is closed with all its files when it is collected."""

    def __init__(self, url: str, fs: AbstractFileSystem, file: Any, size: int) -> None:
        self._url, self._fs, self._file, self._size, self._at = url, fs, file, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._size - self._at))

        def read() -> bytes:
            self._file.seek(self._at)
            data = bytes(self._file.read(size))
            _check(data, size)
            return data

        buffer[:size] = retry(self._url, read)
        self._at += size
        return size

    def readall(self) -> bytes:
        whole = bytearray(max(0, self._size - self._at))
        view, done = memoryview(whole), 0
        while done < len(whole):
            done += self.readinto(view[done : done + CHUNK])
        return bytes(whole)

    def close(self) -> None:
        self._file.close()
        super().close()


def _check(data: bytes, size: int) -> None:
    if len(data) != size:
        raise TruncatedError(f"{len(data)} bytes were read where {size} are")
