"""Which files a data set consists of, and the format of each."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import PurePosixPath
from typing import Literal, cast

from fsspec.core import split_protocol
from fsspec.implementations.local import LocalFileSystem

from flexray.config.data import DataConfig
from flexray.data import hub
from flexray.data.hf_folder import split_files
from flexray.errors import DataError
from flexray.storage import connect, describe, matches, one_each, redact, retry, type_of

Format = Literal["jsonl", "json", "parquet", "arrow", "hub"]

_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
}

_CONVERT = (
    'CSV and TSV are not read, under whatever name: convert it, e.g. by python -c "import pyarrow.csv as c, '
    "pyarrow.parquet as p; p.write_table(c.read_csv('IN'{}), 'OUT.parquet')\"."
)
_ADVICE = {
    ".csv": _CONVERT.format(""),
    ".tsv": _CONVERT.format(", parse_options=c.ParseOptions(delimiter='\\t')"),
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".lz4"), "Compressed files are not read: unpack it."),
    ".zip": "Name what is in the archive: zip://MEMBER.jsonl::ARCHIVE.zip, or a glob zip://*.jsonl::ARCHIVE.zip.",
    ".tar": "Name what is in the archive: tar://MEMBER.jsonl::ARCHIVE.tar, or a glob tar://*.jsonl::ARCHIVE.tar.",
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
        ConfigError: data.hub names a data set that this machine's cache does not have.
    """
    if config.hub is not None:
        split = config.hub.split or config.split
        if (folder := hub.folder_of(config.hub)) is not None:
            return find_files((folder,), "data.hub", split=split)
        return [SourceFile(hub.path_of(config.hub, split), "hub")]
    return find_files(config.files, "data.files", form=config.format, split=config.split)


def find_files(
    patterns: Sequence[str], key: str, *, form: Format | Literal["auto"] = "auto", split: str = ""
) -> list[SourceFile]:
    """Likewise for any list of paths, URLs and globs; `key` is its place in the configuration."""
    paths = {path for pattern in patterns for path in _expand(pattern, key, split)}
    local = {path for path in paths if os.path.isabs(path)}
    once = paths - local | set(one_each(LocalFileSystem(), local))  # not again by a link
    return sorted(SourceFile(path, _format(path) if form == "auto" else form) for path in once)


def with_version(file: SourceFile) -> tuple[SourceFile, str]:
    """A key for caches: another one once the file has changed, by its size and time, or its ETag."""
    if file.format == "hub":
        return file, ""  # a commit does not change
    fs, name = retry(file.path, lambda: connect(file.path))
    return file, str(retry(file.path, lambda: fs.ukey(name)))


def _expand(pattern: str, key: str, split: str) -> list[str]:
    shown = redact(pattern)
    try:
        fs, name = retry(pattern, lambda: connect(pattern))
        if there := type_of(fs, name, pattern):  # first, so that a name may hold [ or *
            names: list[str] | None = [name]
            if there == "directory":
                names = split_files(fs, name, split, pattern) if split else None
            if names is None:
                raise DataError(
                    f"{shown}: a folder, not a file. Give a glob, e.g. {shown.rstrip('/')}/*.parquet."
                )
        elif has_magic(_without_query(name)):
            names = matches(fs, name, pattern)
            if not names and (hidden := matches(fs, name, pattern, hidden=True)):
                raise DataError(
                    f"{shown}: matches hidden files only, such as {redact(hidden[0])}. A glob passes over "
                    "names that begin with a dot, and over Spark's own (_temporary). If those are meant, "
                    f"spell how the name begins, as in .*/*.jsonl; else correct {key}."
                )
        else:
            raise DataError(f"{shown}: no such file. Correct {key}.")
    except DataError:
        raise
    except Exception as e:  # each store raises its own types for a bad URL, key or permission
        raise DataError(f"{shown}: cannot be listed: {describe(e, pattern)}") from e
    if not names:
        raise DataError(f"{shown}: no file matches this glob. Correct {key}.")
    for n in names:
        _check_utf8(n)
    if isinstance(fs, LocalFileSystem):
        return names  # fsspec has made them absolute: a worker has another working folder
    if "::" in pattern:
        return _chained(names, name, pattern)
    return [cast(str, fs.unstrip_protocol(n)) for n in names]


def _check_utf8(name: str) -> None:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as e:
        raise DataError(f"{name!a}: the file's name is not UTF-8. Rename the file.") from e


def _chained(names: list[str], meant: str, pattern: str) -> list[str]:
    """The URLs of files found by a chained URL, such as zip://*.jsonl::s3://bucket/a.zip.

    Args:
        names: those found, in the file system of the first link.
        meant: the name that the pattern itself has there.
    """
    first, *links = pattern.split("::")
    protocol, separator, _ = first.partition("://")
    *between, last = links
    if split_protocol(last)[0] in (None, "file", "local"):
        last = LocalFileSystem._strip_protocol(last)  # absolute, as above
    rest = "::".join([*between, last])
    if separator:  # an archive: the name stands in its own link
        return [f"{protocol}://{name}::{rest}" for name in names]
    if names != [meant]:
        raise DataError(
            f"{redact(pattern)}: a glob in a chained URL is read only in an archive (zip://*.jsonl::a.zip). "
            "Name the files one by one."
        )
    return [f"{first}::{rest}"]


def _without_query(name: str) -> str:
    """In a web address ? begins the query, and is no wild card."""
    return re.split("[?#]", name, maxsplit=1)[0] if name.startswith(("http://", "https://")) else name


def _format(path: str) -> Format:
    link = next((link for link in path.split("::") if "://" in link), path)
    extension = PurePosixPath(_without_query(link)).suffix.lower()
    if extension not in _FORMATS:
        known = f"known: {', '.join(_FORMATS)}"
        raise DataError(
            f"{redact(path)}: the extension {extension!r} does not tell the format ({known}). "
            + _ADVICE.get(extension, "Set data.format, or rename the file.")
        )
    return _FORMATS[extension]
