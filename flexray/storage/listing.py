"""What is there: globs that leave nothing out, and names of which a fault is not taken for a no."""

from __future__ import annotations

import re
from typing import Any

from fsspec.spec import AbstractFileSystem
from fsspec.utils import glob_translate

from flexray.storage.access import patiently


def matches(fs: AbstractFileSystem, glob: str, url: str) -> list[str]:
    """Sorted names of the files that match a glob.

    Not fsspec's own `glob`: it passes over folders that cannot be listed, and so over their files, and
    says nothing. `url` is what messages name.

    Raises:
        OSError: a folder cannot be listed.
        ValueError: `**` is only a part of a path's component.
    """
    before = re.split(r"[*?[]", glob, maxsplit=1)[0]
    root = before[: before.rfind("/") + 1]
    parts = glob[len(root) :].split("/")
    whole = re.compile(glob_translate(glob))
    names: set[str] = set()
    folders = [(root, 1)]
    while folders:
        folder, depth = folders.pop()
        on_the_way = re.compile(glob_translate(root + "/".join(parts[:depth])))
        for entry in _entries(fs, folder, url):
            name = entry["name"].rstrip("/")
            if entry["type"] != "directory":
                if whole.match(name):
                    names.add(name)
            elif "**" in parts[:depth] or (depth < len(parts) and on_the_way.match(name)):
                folders.append((name, depth + 1))
    return sorted(names)


def type_of(fs: AbstractFileSystem, name: str, url: str) -> str:
    """`file`, `directory`, or what else bears a name; "" if nothing does.

    Not fsspec's own `exists` and `isdir`: they may take a fault for a no. `url` is what messages name.

    Raises:
        OSError: it cannot be told.
    """
    try:
        return str(patiently(url, lambda: fs.info(name)["type"]))
    except FileNotFoundError:
        return ""


def _entries(fs: AbstractFileSystem, folder: str, url: str) -> list[dict[str, Any]]:
    try:
        entries = patiently(url, lambda: fs.ls(folder or fs.root_marker, detail=True))
    except FileNotFoundError:
        return []
    # S3 shows a folder made by hand as an empty file of the folder's own name.
    return [entry for entry in entries if entry["name"].rstrip("/") != folder.rstrip("/")]
