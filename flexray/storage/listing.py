"""List files: globs like a shell's, and lookups that do not mistake an error for a missing file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from heapq import heappop, heappush
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem
from fsspec.utils import glob_translate

from flexray.storage.access import retry

BOOKKEEPING = {"_temporary", "_SUCCESS", "_metadata", "_common_metadata", "_spark_metadata", "_delta_log"}
"""Files of Spark and Hadoop that hold no rows, or unfinished copies of them."""


def is_hidden(name: str) -> bool:
    """Whether a glob skips this name, unless the pattern begins with the same character."""
    return name.startswith(".") or name in BOOKKEEPING


def matches(fs: AbstractFileSystem, glob: str, url: str, *, hidden: bool = False) -> list[str]:
    """Sorted names of the files that match a glob. `hidden`: also those that it would skip.

    As in a shell, links are followed, and the dot of a hidden name must be spelt out. Several names of one
    file (links) count once. fsspec's own `glob` follows no links, and silently skips folders that it cannot
    list. `url` is for messages.

    Raises:
        OSError: a folder cannot be listed.
        ValueError: `**` is only part of a component of the path.
    """
    before = re.split(r"[*?[]", glob, maxsplit=1)[0]
    root = before[: before.rfind("/") + 1]
    parts = glob[len(root) :].split("/")
    patterns = [_pattern(part) for part in parts]
    names: set[str] = set()
    entries = cache(lambda folder: _entries(fs, folder, url))
    # (links on the path to a folder, fewest first; the folder; the component that its entries must match).
    # Each folder is visited once for each component, so that loops of links end.
    todo: list[tuple[int, str, int]] = [(0, root, 0)]
    done: set[tuple[str, int]] = set()
    while todo:
        links, folder, at = heappop(todo)
        if (key := (real_name(fs, folder), at)) in done:
            continue
        done.add(key)
        anywhere, last = parts[at] == "**", at == len(parts) - 1
        if anywhere and not last:
            heappush(todo, (links, folder, at + 1))
        for entry in entries(folder):
            name = entry["name"].rstrip("/")
            base = name.rpartition("/")[2]
            if (not hidden and _is_skipped(base, parts[at])) or not patterns[at].match(base):
                continue
            if not _is_folder(fs, entry, url):
                names.update([name] if last else [])
            elif anywhere or not last:
                further = links + bool(entry.get("islink"))
                heappush(todo, (further, name, at if anywhere else at + 1))
    return _one_each(fs, names)


def reads_output(glob: str, output: str) -> bool:
    """Whether a glob of input files, with `**`, has a folder of output within its reach, and files of the
    kinds that are written there. Both are paths or URLs."""
    _, separator, path = glob.rpartition("://")
    if "::" in glob or "**" not in path or not path.endswith((".parquet", ".json", "*")):
        return False
    if separator:
        parts, folders = glob.split("/"), output.rstrip("/").split("/")
    else:
        parts, folders = (os.path.abspath(path).split("/") for path in (glob, output))

    def reaches(parts: list[str], folders: list[str]) -> bool:
        if not parts or not folders:
            return parts[:1] == ["**"]
        if _is_skipped(folders[0], parts[0]):
            return False
        if parts[0] == "**":
            return reaches(parts[1:], folders) or reaches(parts, folders[1:])
        return bool(_pattern(parts[0]).match(folders[0])) and reaches(parts[1:], folders[1:])

    return reaches(parts, folders)


def _pattern(part: str) -> re.Pattern[str]:
    """Of a component of a glob."""
    return re.compile(glob_translate(part.replace("[^", "[!")))


def _is_skipped(name: str, part: str) -> bool:
    return is_hidden(name) and part[:1] != name[0]


def distinct_files(paths: Iterable[str]) -> list[str]:
    """The absolute paths and URLs, one for each file: its own name rather than a link to it. Of a chained URL
    (zip://a.jsonl::/data/q.zip) the last link counts, that to the archive."""
    files: dict[str, str] = {}
    for path in sorted(set(paths), key=lambda path: (_real_path(path) != path, path)):
        files.setdefault(_real_path(path), path)
    return sorted(files.values())


def _real_path(path: str) -> str:
    links, chained, last = path.rpartition("::")
    return links + chained + (os.path.realpath(last) if os.path.isabs(last) else last)


def _one_each(fs: AbstractFileSystem, names: set[str]) -> list[str]:
    """Sorted names, one for each file: its own name rather than a link, else the first link."""
    files: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (real_name(fs, name) != name, name)):
        files.setdefault(real_name(fs, name), name)
    return sorted(files.values())


def real_name(fs: AbstractFileSystem, name: str) -> str:
    """The name with links resolved."""
    return os.path.realpath(name) if isinstance(fs, LocalFileSystem) else name.rstrip("/")


def type_of(fs: AbstractFileSystem, name: str, url: str) -> str:
    """The type of a name: `file`, `directory` or another; "" if there is none.

    fsspec's own `exists` and `isdir` may return False for an error. `url` is for messages.

    Raises:
        OSError: the storage failed.
    """
    try:
        return str(retry(url, lambda: fs.info(name)["type"]))
    except FileNotFoundError:
        return ""


def _is_folder(fs: AbstractFileSystem, entry: dict[str, Any], url: str) -> bool:
    if entry["type"] in ("file", "directory"):
        return bool(entry["type"] == "directory")
    if isinstance(fs, LocalFileSystem):
        return os.path.isdir(entry["name"])  # a broken link is listed, and fails when it is opened
    return type_of(fs, entry["name"], url) == "directory"


def _entries(fs: AbstractFileSystem, folder: str, url: str) -> list[dict[str, Any]]:
    try:
        entries = retry(url, lambda: fs.ls(folder or fs.root_marker, detail=True))
    except FileNotFoundError:
        return []
    # S3 shows a folder made by hand as an empty file of the folder's own name.
    return [entry for entry in entries if entry["name"].rstrip("/") != folder.rstrip("/")]
