"""Text files as streams of bytes, unpacked on the way if they are compressed. Memory is bounded: a file is
never unpacked as a whole, and a record of more than MAX_RECORD_BYTES is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import pyarrow as pa

from flexray.errors import DataError
from flexray.storage import StorageError, open_file, redact

MAX_RECORD_BYTES = 64 * 2**20
_BUFFER = 2**20


def _zstd(stream: BinaryIO) -> Any:
    return pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")


_UNPACK: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _zstd,
}
COMPRESSED = tuple(_UNPACK)
"""Extensions of compressed files."""


def name_of(path: str) -> PurePosixPath:
    """The file's name without the rest of a URL: of a member of an archive, its name in the archive."""
    link = next((link for link in path.split("::") if "://" in link), path)
    if link.startswith(("http://", "https://")):  # there, ? is not a wildcard but begins the query
        link = link.partition("#")[0].partition("?")[0]
    return PurePosixPath(link)


def is_compressed(path: str) -> bool:
    """Whether the file's extension says so."""
    return name_of(path).suffix.lower() in _UNPACK


def open_text(path: str) -> BinaryIO:
    """The bytes of a text file; those of a compressed one are unpacked.

    Raises:
        OSError: the file cannot be opened, or later read.
        DataError: later, if a compressed file is damaged or cut off.
    """
    stream = open_file(path)
    if not is_compressed(path):
        return stream
    return cast(BinaryIO, io.BufferedReader(_Unpacked(path, stream), _BUFFER))


def too_long(path: str, row: int) -> DataError:
    """The error for a record of more than MAX_RECORD_BYTES."""
    return DataError(
        f"{redact(path)}: row {row} does not end within {MAX_RECORD_BYTES // 2**20} MiB. Correct the row, or "
        "check data.format."
    )


class _Unpacked(io.RawIOBase):
    def __init__(self, path: str, packed: BinaryIO) -> None:
        self._path, self._packed = path, packed
        self._stream: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            if self._stream is None:
                self._stream = _UNPACK[name_of(self._path).suffix.lower()](self._packed)
            data = self._stream.read(len(buffer))
        except StorageError:
            raise
        except (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowException) as e:
            if isinstance(e, OSError) and e.errno is not None:  # of the disk, not of the content
                raise
            raise DataError(
                f"{redact(self._path)}: the compressed file is cut off or damaged: {e}. Copy the file again; "
                "if it is not compressed, rename it."
            ) from e
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._packed.close()
        super().close()
