"""A Hugging Face hub on loopback: as much of its API as its client needs to find and bring repositories."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest


@dataclass
class FakeHub:
    """Repositories by kind and name ("models/owner/name"), their branches and their commits."""

    endpoint: str = ""
    branches: dict[tuple[str, str], str] = field(default_factory=dict)
    commits: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """The paths of all requests to the API."""
    served: list[str] = field(default_factory=list)
    """The files that were downloaded, in order."""

    def push(self, repo: str, folder: Path, branch: str = "main", **more: bytes) -> str:
        """Make the files of a folder the newest commit of a branch; returns the commit.

        Args:
            repo: "models/owner/name" or "datasets/owner/name".
            more: further files, with __ for a dot.
        """
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        files |= {name.replace("__", "."): content for name, content in more.items()}
        commit = hashlib.sha1(repr((repo, sorted(files.items()))).encode()).hexdigest()
        self.commits[repo, commit] = files
        self.branches[repo, branch] = commit
        return commit

    def find(self, repo: str, revision: str) -> str | None:
        """The commit of a revision."""
        if (repo, revision) in self.commits:
            return revision
        return self.branches.get((repo, revision))


def use_hub(hub: FakeHub, home: Path, patch: pytest.MonkeyPatch) -> None:
    """Let this process, and those that it starts, use this hub and an empty cache below `home`. Without
    HF_HUB_OFFLINE: what is not to be asked must not be asked by itself."""
    import datasets.config
    from huggingface_hub import constants

    from flexray.data.hub import _arrow_files

    _arrow_files.cache_clear()  # of another test's cache
    patch.setenv("HF_HOME", str(home))
    patch.setenv("HF_ENDPOINT", hub.endpoint)
    patch.delenv("HF_HUB_OFFLINE", raising=False)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    patch.setattr(constants, "ENDPOINT", hub.endpoint)
    patch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(home / "datasets"))


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub that answers until the block ends."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            if parts[0] == "api":
                self._api(parts[1:])
            else:
                self._resolve(parts)

        def _api(self, parts: list[str]) -> None:
            hub.asked.append(self.path)
            repo, what, revision = "/".join(parts[:3]), *(parts[3:5] or ("revision", "main"))
            if (commit := self._commit(repo, revision)) is None:
                return
            files = hub.commits[repo, commit]
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": _oid(data)}
                for name, data in files.items()
            ]
            info = {"id": "/".join(parts[1:3]), "sha": commit, "private": False, "tags": [], "downloads": 0}
            info["siblings"] = [{"rfilename": name} for name in files]
            self._send(200, json.dumps(tree if what == "tree" else info).encode())

        def _resolve(self, parts: list[str]) -> None:
            kind = parts[0] if parts[0] == "datasets" else "models"
            owner, name, _, revision, *path = parts if kind == "models" else parts[1:]
            repo, file = f"{kind}/{owner}/{name}", "/".join(path)
            if (commit := self._commit(repo, revision)) is None:
                return
            data = hub.commits[repo, commit].get(file)
            if data is None:
                self._refuse("EntryNotFound", {"X-Repo-Commit": commit})
                return
            if self.command == "GET":
                hub.served.append(file)
            self._send(200, data, {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": commit})

        def _commit(self, repo: str, revision: str) -> str | None:
            if not any(known == repo for known, _ in hub.branches):
                self._refuse("RepoNotFound")
                return None
            commit = hub.find(repo, revision)
            if commit is None:
                self._refuse("RevisionNotFound")
            return commit

        def _refuse(self, code: str, headers: dict[str, str] | None = None) -> None:
            self._send(404, b"{}", {"X-Error-Code": code, **(headers or {})})

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _oid(data: bytes) -> str:
    """As git names a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
