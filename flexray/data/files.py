"""Which files a data set consists of, and the format of each."""

from __future__ import annotations

from dataclasses import dataclass
from glob import has_magic
from pathlib import PurePosixPath
from typing import Any, Literal, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from flexray.config import DataConfig
from flexray.types import DataError

Format = Literal["jsonl", "json", "parquet"]

_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}


@dataclass(frozen=True, order=True, slots=True)
class SourceFile:
    """One input file: an absolute path or a URL, and how to read it."""

    path: str
    format: Format


def list_files(config: DataConfig) -> list[SourceFile]:
    """Every file of the data set once, in sorted order whatever the order in the configuration.

    Raises:
        DataError: a path that does not exist, a glob without a match, a folder, storage that cannot
            be reached, or a name that does not tell the format.
    """
    paths = {path for pattern in config.files for path in _expand(pattern)}
    return sorted(SourceFile(path, _format(path, config)) for path in paths)


def open_file(path: str) -> Any:
    """An open binary file, seekable, for a path or URL."""
    fs, name = fsspec.core.url_to_fs(path)
    return fs.open(name, "rb")


def _expand(pattern: str) -> list[str]:
    try:
        fs, name = fsspec.core.url_to_fs(pattern)
        if fs.exists(name):  # first, so that a file whose name holds [ or * can be named
            if fs.isdir(name):
                raise DataError(
                    f"{pattern}: a folder, not a file. Give a glob, e.g. {pattern.rstrip('/')}/*.parquet."
                )
            names = [name]
        elif has_magic(name):
            found = fs.glob(name, detail=True)
            names = [n for n, info in found.items() if info["type"] != "directory"]
        else:
            raise DataError(f"{pattern}: no such file. Correct data.files.")
    except DataError:
        raise
    except Exception as e:  # each store raises its own types for a bad URL, key or permission
        raise DataError(f"{pattern}: cannot be listed: {type(e).__name__}: {e}") from e
    if not names:
        raise DataError(f"{pattern}: no file matches this glob. Correct data.files.")
    return [_absolute(fs, n, pattern) for n in names]


def _absolute(fs: Any, name: str, pattern: str) -> str:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as e:
        raise DataError(f"{name!a}: the file's name is not UTF-8. Rename the file.") from e
    if isinstance(fs, LocalFileSystem):
        return name  # fsspec has made it absolute: a worker has another working folder
    if "::" in pattern:  # a chained URL cannot be put together again from its parts
        if has_magic(pattern):
            raise DataError(f"{pattern}: a glob in a chained URL is not read. Name the files one by one.")
        return pattern
    return cast(str, fs.unstrip_protocol(name))


def _format(path: str, config: DataConfig) -> Format:
    if config.format != "auto":
        return config.format
    extension = PurePosixPath(path).suffix.lower()
    if extension not in _FORMATS:
        raise DataError(
            f"{path}: the extension {extension!r} does not tell the format (known: {', '.join(_FORMATS)}). "
            "Set data.format, or rename the file; compressed files are not read."
        )
    return _FORMATS[extension]
