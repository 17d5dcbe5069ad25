"""Which files a data set consists of, and the format of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import PurePosixPath
from typing import Any, Literal, cast

from fsspec.implementations.local import LocalFileSystem

from flexray.data.hf_folder import split_files
from flexray.data_config import DataConfig
from flexray.storage import connect, describe, matches, patiently, scrub, type_of
from flexray.types import DataError

Format = Literal["jsonl", "json", "parquet", "arrow"]

_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
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
    return find_files(config.files, "data.files", form=config.format, split=config.split)


def find_files(
    patterns: Sequence[str], key: str, *, form: Format | Literal["auto"] = "auto", split: str = ""
) -> list[SourceFile]:
    """Likewise for any list of paths, URLs and globs; `key` is its place in the configuration."""
    paths = {path for pattern in patterns for path in _expand(pattern, key, split)}
    return sorted(SourceFile(path, _format(path) if form == "auto" else form) for path in paths)


def with_version(file: SourceFile) -> tuple[SourceFile, str]:
    """A key for caches: another one once the file has changed, by its size and time, or its ETag."""
    fs, name = connect(file.path)
    return file, str(patiently(file.path, lambda: fs.ukey(name)))


def _expand(pattern: str, key: str, split: str) -> list[str]:
    shown = scrub(pattern)
    try:
        fs, name = connect(pattern)
        if there := type_of(fs, name, pattern):  # first, so that a name may hold [ or *
            names: list[str] | None = [name]
            if there == "directory":
                names = split_files(fs, name, split, pattern) if split else None
            if names is None:
                raise DataError(
                    f"{shown}: a folder, not a file. Give a glob, e.g. {shown.rstrip('/')}/*.parquet."
                )
        elif has_magic(name):
            names = matches(fs, name, pattern)
        else:
            raise DataError(f"{shown}: no such file. Correct {key}.")
    except DataError:
        raise
    except Exception as e:  # each store raises its own types for a bad URL, key or permission
        raise DataError(f"{shown}: cannot be listed: {describe(e, pattern)}") from e
    if not names:
        raise DataError(f"{shown}: no file matches this glob. Correct {key}.")
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
            raise DataError(
                f"{scrub(pattern)}: a glob in a chained URL is not read. Name the files one by one."
            )
        return pattern
    return cast(str, fs.unstrip_protocol(name))


def _format(path: str) -> Format:
    extension = PurePosixPath(path).suffix.lower()
    if extension not in _FORMATS:
        raise DataError(
            f"{scrub(path)}: the extension {extension!r} does not tell the format "
            f"(known: {', '.join(_FORMATS)}). Set data.format, or rename the file; compressed files are "
            "not read."
        )
    return _FORMATS[extension]
