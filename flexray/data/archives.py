"""The members of zip and tar archives, by the names that they would have if they were unpacked."""

from __future__ import annotations

import logging
import re
import stat
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from fsspec.core import split_protocol
from fsspec.implementations.tar import TarFileSystem
from fsspec.implementations.zip import ZipFileSystem
from fsspec.spec import AbstractFileSystem

from flexray.data.text import name_of
from flexray.errors import DataError, first_few
from flexray.storage import BOOKKEEPING, redact

_PROTOCOLS = {".zip": "zip", **dict.fromkeys((".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz"), "tar")}
"""Extensions of archives, and the protocol that reads each."""
_HIDDEN = {*BOOKKEEPING, "__MACOSX", ".git", ".ipynb_checkpoints"}
"""Folders and files that are no data, or copies of it."""
_log = logging.getLogger(__name__)


def protocol_of(path: str) -> str | None:
    """The protocol that reads the members of a file; None: its extension is not that of an archive."""
    name = name_of(path).name.lower()
    return next((protocol for extension, protocol in _PROTOCOLS.items() if name.endswith(extension)), None)


def is_member(path: str) -> bool:
    """Whether the file is in an archive."""
    return "::" in path and split_protocol(path.partition("::")[0])[0] in ("zip", "tar", "libarchive")


def way_out(path: str) -> str:
    """What to do about a file that cannot be read, beside correcting it: something if it is in an archive."""
    if not is_member(path):
        return ""
    url = redact(path)
    links = f"{url.partition('://')[0]}://MEMBER::{url.partition('::')[2]}"
    return f" If this member of the archive is not meant, name one that is, or a glob: {links}."


class Archive(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The members of an archive by plain names, such as a.jsonl for ./a.jsonl, and for x/./a.jsonl x/a.jsonl.
    `..` and a leading / are left out, too: `members_of` refuses these members.

    Args:
        fs: the file system of a zip or tar archive.
        url: the archive's, for messages.
    """

    cachable = False
    root_marker = ""

    def __init__(self, fs: AbstractFileSystem, url: str) -> None:
        super().__init__()
        self._fs, self._url = fs, redact(url)
        self._members: dict[str, list[str]] = defaultdict(list)
        self._folders: dict[str, dict[str, str]] = {"": {}}  # the type of each name in a folder
        are_files = _are_files(fs)
        self._links = {member for member, is_file in are_files if not is_file}
        for member, _ in are_files:
            name = _plain(member)
            self._members[name].append(member)
            kind, is_new = "file", True
            while name and is_new:
                folder, _, base = name.rpartition("/")
                is_new = folder not in self._folders or not folder
                self._folders.setdefault(folder, {})[base] = kind
                name, kind = folder, "directory"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return _plain(path)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        name = _plain(path)
        if name in self._members:
            return {"name": name, "type": "file"}
        if name in self._folders:
            return {"name": name, "type": "directory"}
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        folder = _plain(path)
        if folder not in self._folders:
            raise FileNotFoundError(path)
        entries = [
            {"name": f"{folder}/{base}" if folder else base, "type": kind}
            for base, kind in self._folders[folder].items()
        ]
        return entries if detail else [entry["name"] for entry in entries]

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        return bytes(self._fs.cat_file(self._members[_plain(path)][-1], start, end))

    def names(self) -> list[str]:
        """Those of all members, except what systems and tools leave in an archive."""
        return sorted(name for name in self._members if not any(map(_is_hidden, name.split("/"))))

    def members_of(self, names: Iterable[str]) -> list[str]:
        """The members' own names, by which fsspec reads them. Links are left out, with a warning.

        Raises:
            DataError: a name leads out of the archive, cannot stand in a URL or is there twice; or all
                are links.
        """
        members = []
        for name in names:
            member, *others = self._members.get(_plain(name), [name])
            members.append(member)
            if others:
                raise DataError(
                    f"{self._url}: the members {member!r} and {others[0]!r} have the same name when they are "
                    "unpacked. Pack the archive again with one of them."
                )
            if ".." in member.split("/") or member.startswith("/") or "::" in member or "://" in member:
                raise DataError(
                    f"{self._url}: the member {member!r} cannot be read: its name is absolute, or has .., :: "
                    "or ://. Pack the archive again with plain names, or name the others: "
                    f"{self._fs.protocol}://MEMBER::{self._url}."
                )
        links = [member for member in members if member in self._links]
        if links:
            text = f"{self._url}: members that are links or special files are not read: "
            text += f"{first_few(map(repr, links), 5)}. Name the file that a link leads to."
            if len(links) == len(members):
                raise DataError(text)
            _log.warning("%s", text)
        return [member for member in members if member not in self._links]


def _are_files(fs: AbstractFileSystem) -> list[tuple[str, bool]]:
    """The members except folders, and whether each is a file of its own: not a link nor a device. Of a tar's
    members of one name the last, which is what unpacking leaves."""
    # not by `find`, which goes through all members for each folder
    if isinstance(fs, TarFileSystem):
        members = {re.sub("/+", "/", m.name): m.isreg() for m in fs.tar.getmembers() if not m.isdir()}
        return list(members.items())
    if isinstance(fs, ZipFileSystem):
        modes = [(m.filename, m.external_attr >> 16) for m in fs.zip.infolist() if not m.is_dir()]
        return [(name, stat.S_IFMT(mode) in (0, stat.S_IFREG)) for name, mode in modes]
    return [(name, True) for name in fs.find("")]


def _plain(name: str) -> str:
    """The name without what does not tell it apart. It has no `..`, which a glob would take for hidden."""
    parts = (part for part in name.split("/") if part not in ("", "."))
    return "/".join("_" if part == ".." else part for part in parts)


def _is_hidden(part: str) -> bool:
    return part in _HIDDEN or part.startswith("._")
