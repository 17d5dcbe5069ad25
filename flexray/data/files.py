"""List the files of a data set, with the format of each."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape, has_magic
from pathlib import PurePosixPath
from typing import Literal, cast

import pyarrow as pa
from fsspec.core import split_protocol
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from flexray.config.data import DataConfig
from flexray.data import hub
from flexray.data.archives import Archive, is_member, protocol_of, way_out
from flexray.data.hf_folder import split_files
from flexray.data.text import COMPRESSED, is_compressed, name_of
from flexray.errors import DataError, first_few
from flexray.storage import connect, describe, distinct_files, matches, redact, retry, type_of

Format = Literal["jsonl", "json", "csv", "tsv", "parquet", "arrow", "hub"]

_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
_COLUMNAR = ("parquet", "arrow")
_CUT_OFF = (zipfile.BadZipFile, tarfile.ReadError, EOFError)

_ADVICE = dict.fromkeys((".7z", ".rar", ".lz4", ".tar.zst", ".txz", ".tbz2"), "Unpack the file.")


@dataclass(frozen=True, order=True, slots=True)
class SourceFile:
    """One input file: an absolute path or a URL, and how to read it."""

    path: str
    format: Format


def list_files(config: DataConfig) -> list[SourceFile]:
    """Every file of the data set once, sorted, independent of the order in the configuration.

    Raises:
        DataError: a path does not exist, a glob has no match, a path is a folder, the storage cannot be
            reached, or the format is unknown.
        ConfigError: data.hub names a data set that is not in this machine's cache.
    """
    if config.hub is not None:
        split = config.hub.split or config.split
        if (folder := hub.folder_of(config.hub)) is not None:
            return find_files((folder,), "data.hub", split=split)
        return [SourceFile(hub.path_of(config.hub, split), "hub")]
    return find_files(config.files, "data.files", form=config.format, split=config.split)


def check_paths(config: DataConfig) -> None:
    """See that the local paths and globs of `data.files` have files, before anything that takes longer. What
    is in archives and in other storage is seen when it is read. Raises DataError, as `list_files`."""
    for pattern in config.files:
        if "::" not in pattern and split_protocol(pattern)[0] in (None, "file", "local"):
            _expand(pattern, "data.files", config.split)


def find_files(
    patterns: Sequence[str], key: str, *, form: Format | Literal["auto"] = "auto", split: str = ""
) -> list[SourceFile]:
    """As `list_files`, for any list of paths, URLs and globs; `key` is its key in the configuration. An
    archive stands for its members of the format, or with "auto" for those of a known format."""
    found = distinct_files(path for pattern in patterns for path in _expand(pattern, key, split))
    once = distinct_files(member for path in found for member in _unpacked(path, key, form))
    return sorted(
        _check_packing(SourceFile(path, _format(path) if form == "auto" else form)) for path in once
    )


def with_version(file: SourceFile) -> tuple[SourceFile, str]:
    """The file and its version, as a cache key that changes with the file's size and time, or its ETag; of a
    member of an archive, with those of the archive."""
    if file.format == "hub":
        return file, ""  # a commit does not change
    place = file.path
    while is_member(place):  # fsspec gives it another key in each process
        place = place.partition("::")[2]
    fs, name = retry(place, lambda: connect(place))
    return file, str(retry(place, lambda: fs.ukey(name)))


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Errors of the storage and of Arrow become a DataError that names the file."""
    try:
        yield
    except (OSError, pa.ArrowException) as e:
        raise DataError(f"{redact(path)}: cannot be read: {describe(e)}") from e


@contextmanager
def reading_file(file: SourceFile) -> Iterator[None]:
    """As `reading`; if a member of an archive cannot be read, the error says how to choose others."""
    try:
        with reading(file.path):
            yield
    except DataError as e:
        if advice := way_out(file.path):
            raise DataError(f"{e}{advice}") from e
        raise


@contextmanager
def _listing(pattern: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as e:  # each store has its own exceptions for a bad URL, key or permission
        is_cut = any(isinstance(error, _CUT_OFF) for error in (e, e.__cause__, e.__context__))
        advice = " Copy the archive again." if is_cut else ""
        raise DataError(f"{redact(pattern)}: cannot be listed: {describe(e, pattern)}{advice}") from e


def _connect(pattern: str) -> tuple[AbstractFileSystem, str]:
    """As `connect`; an archive is an `Archive`."""
    fs, name = retry(pattern, lambda: connect(pattern))
    if is_member(pattern):
        fs = Archive(fs, pattern.partition("::")[2])
    return fs, name


def _expand(pattern: str, key: str, split: str) -> list[str]:
    shown = redact(pattern)
    with _listing(pattern):
        fs, name = _connect(pattern)
        if there := type_of(fs, name, pattern):  # checked first, because a file name may contain [ or *
            names: list[str] | None = [name]
            if there == "directory":
                names = split_files(fs, name, split, pattern) if split else None
            if names is None:
                first, chained, rest = shown.partition("::")
                raise DataError(
                    f"{shown}: a folder, not a file. Give a glob, e.g. {first.rstrip('/')}/*.parquet"
                    f"{chained}{rest}."
                )
        elif has_magic(str(name_of(name))):
            here = os.getcwd()
            if name == f"{here}/{pattern}":  # only what the user wrote is a pattern
                name = f"{escape(here)}/{pattern}"
            names = matches(fs, name, pattern)
            if not names and (hidden := matches(fs, name, pattern, hidden=True)):
                raise DataError(
                    f"{shown}: matches only hidden files, such as {redact(hidden[0])}. A glob does not match "
                    "names that begin with a dot, nor temporary folders of Spark (_temporary). If you mean "
                    f"these files, spell the beginning of the name, as in .*/*.jsonl; else correct {key}."
                )
        else:
            raise DataError(f"{shown}: no such file. Correct {key}.")
    if not names:
        raise DataError(f"{shown}: no file matches this glob. Correct {key}.")
    if isinstance(fs, Archive):
        return _chained(fs.members_of(names), name, pattern)
    for n in names:
        _check_utf8(n)
    if isinstance(fs, LocalFileSystem):
        for n in names:
            _check_regular(n)
        return names  # absolute, because fsspec makes them so; workers have another working directory
    if "::" in pattern:
        return _chained(names, name, pattern)
    return [cast(str, fs.unstrip_protocol(n)) for n in names]


def _check_regular(name: str) -> None:
    """Refuse what is no file: whoever opens a pipe waits for somebody who writes into it."""
    try:
        is_regular = stat.S_ISREG(os.stat(name).st_mode)
    except OSError:
        return  # as of a broken link: told by what opens it
    if not is_regular:
        raise DataError(
            f"{name}: a pipe, socket or device, not a file. Files are read more than once, and by several "
            "processes: write what it gives into one."
        )


def _unpacked(path: str, key: str, form: str) -> list[str]:
    """The members of an archive that are read; of another file, the file."""
    if (protocol := protocol_of(path)) is None:
        return [path]
    pattern = f"{protocol}://**::{path}"
    with _listing(path):
        fs, _ = _connect(pattern)
        assert isinstance(fs, Archive), pattern
        names = fs.names()
    formats = {name: _FORMATS.get(_extension(name)[0]) for name in names}
    known = [name for name in names if formats[name] and form in ("auto", formats[name])]
    if form != "auto":
        known = known or names  # of a format that no name says
    if not known:
        found = first_few(map(repr, names), 5) or "(no files)"
        raise DataError(
            f"{redact(path)}: no member of the archive has a known format ({', '.join(_FORMATS)}); found: "
            f"{found}. Name the member ({protocol}://MEMBER::{redact(path)}) and set data.format, or correct "
            f"{key}."
        )
    return _chained(fs.members_of(known), "", pattern)


def _check_utf8(name: str) -> None:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as e:
        raise DataError(f"{name!a}: the file's name is not UTF-8. Rename the file.") from e


def _chained(names: list[str], meant: str, pattern: str) -> list[str]:
    """The URLs of files that a chained URL matches, such as zip://*.jsonl::s3://bucket/a.zip.

    Args:
        names: the files that were found, as names in the file system of the first link.
        meant: the pattern, as a name in this file system.
    """
    first, *links = pattern.split("::")
    protocol, separator, _ = first.partition("://")
    *between, last = links
    if split_protocol(last)[0] in (None, "file", "local"):
        last = LocalFileSystem._strip_protocol(last)  # makes it absolute
    rest = "::".join([*between, last])
    for name in names:
        _check_utf8(name)
    if separator:  # an archive: the first link contains the file's name
        return [f"{protocol}://{name}::{rest}" for name in names]
    if names != [meant]:
        raise DataError(
            f"{redact(pattern)}: a glob in a chained URL is supported only in an archive "
            "(zip://*.jsonl::a.zip). Name each file."
        )
    return [f"{first}::{rest}"]


def _extension(path: str) -> tuple[str, str]:
    """What says the format, and what says that the file is compressed; "" if it is not."""
    name = name_of(path)
    packed = name.suffix.lower() if is_compressed(path) else ""
    return PurePosixPath(name.stem if packed else name.name).suffix.lower(), packed


def _format(path: str) -> Format:
    extension, packed = _extension(path)
    if extension not in _FORMATS:
        known = f"known: {', '.join(_FORMATS)}, and text also as {', '.join(COMPRESSED)}"
        raise DataError(
            f"{redact(path)}: the format of the extension {extension + packed!r} is unknown ({known}). "
            + _ADVICE.get(extension + packed, "Set data.format, or rename the file.")
        )
    return _FORMATS[extension]


def _check_packing(file: SourceFile) -> SourceFile:
    if file.format in _COLUMNAR and is_compressed(file.path):
        raise DataError(
            f"{redact(file.path)}: only text is read from compressed files; Parquet and Arrow are compressed "
            "inside. Unpack the file."
        )
    return file
