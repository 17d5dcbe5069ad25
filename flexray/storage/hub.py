"""Repositories of the Hugging Face hub, as they lie in the local cache (HF_HOME, HF_HUB_CACHE).

A repository is read at a commit. A branch or tag means the commit that the cache has for it; `pinned` names
that commit, so that every process of a run reads the same one. Only `download` asks the hub.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from flexray.errors import ConfigError

Kind = Literal["model", "dataset"]

DEFAULT_REVISION = "main"
_REPO = re.compile(r"[A-Za-z0-9_][\w.-]*/[\w.-]+", re.ASCII)
_REVISION = re.compile(r"(?!.*\.\.)[\w][\w./+-]*", re.ASCII)  # it becomes part of a path in the cache
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WHAT = {"model": "model", "dataset": "data set"}


@dataclass(frozen=True, slots=True)
class HubName:
    """A repository and a revision of it: a branch, a tag or a commit.

    >>> str(HubName.parse("meta-llama/Llama-3.2-3B", "model"))
    'meta-llama/Llama-3.2-3B@main'
    """

    repo: str
    revision: str
    kind: Kind

    @classmethod
    def parse(cls, text: str, kind: Kind) -> Self | None:
        """The repository of `owner/name` or `owner/name@revision`; None: the text is of another form."""
        repo, at, revision = text.partition("@")
        revision = revision if at else DEFAULT_REVISION
        if not _REPO.fullmatch(repo) or not _REVISION.fullmatch(revision):
            return None
        return cls(repo, revision, kind)

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit."""
        return _COMMIT.fullmatch(self.revision) is not None

    def at(self, snapshot: Path) -> Self:
        """The same repository at the commit of a snapshot."""
        return replace(self, revision=snapshot.name)

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}"


def find_snapshot(name: HubName, files: Sequence[str]) -> Path:
    """The folder of a repository in the cache, which is named after its commit. The hub is not asked.

    Args:
        files: names and patterns of the files that are needed, of those that the repository has.

    Raises:
        ConfigError: the cache does not have it, or not all of these files, as far as the cache knows. The
            message has the command that brings it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            name.repo,
            repo_type=name.kind,
            revision=name.revision,
            allow_patterns=list(files),
            local_files_only=True,
        )
    except LocalEntryNotFoundError as e:
        # of releases that know which files a repository has
        raise not_there(name, incomplete=hasattr(e, "snapshot_path")) from e
    except HFValidationError as e:
        raise ConfigError(f"{name}: no name of a repository of the Hugging Face hub: {e}") from e
    return Path(folder)


def not_there(name: HubName, *, incomplete: bool = False) -> ConfigError:
    """The error for a repository that the cache does not have, or not as a whole."""
    from huggingface_hub import constants

    what, how = _WHAT[name.kind], "is not complete in" if incomplete else "is not in"
    kind = " --repo-type dataset" if name.kind == "dataset" else ""
    return ConfigError(
        f"{name.repo}: no such {what} folder; and as a {what} of the Hugging Face hub, revision "
        f"{name.revision}, it {how} this machine's cache, {constants.HF_HUB_CACHE}. Correct the name, or "
        f"bring it: hf download {name.repo}{kind} --revision {name.revision} (flexray itself does so only "
        "with --download)."
    )


def download(name: HubName, files: Sequence[str] | Callable[[Sequence[str]], Sequence[str]]) -> Path:
    """Bring the newest commit of a revision into the cache; what is there already is not brought again.

    Args:
        files: names and patterns of the files that are wanted; or a function that chooses them from the names
            of all files of the repository, and raises if it cannot be used.

    Raises:
        ConfigError: the hub cannot be reached, does not have it, or does not let this user have it; or
            HF_HUB_OFFLINE is set.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    if constants.HF_HUB_OFFLINE:
        raise ConfigError(
            f"{name}: HF_HUB_OFFLINE is set, which forbids the download. Unset it, or leave --download out "
            "to use what is in the cache."
        )
    try:
        # snapshot_download would silently take an older commit of the cache if the hub did not answer
        info = HfApi().repo_info(name.repo, repo_type=name.kind, revision=name.revision)
        names = [sibling.rfilename for sibling in getattr(info, "siblings", None) or ()]
        wanted = files(names) if callable(files) else files
        folder = snapshot_download(
            name.repo, repo_type=name.kind, revision=name.revision, allow_patterns=list(wanted)
        )
    except ConfigError:
        raise
    except Exception as e:  # those of the hub, of the client of HTTP, of Xet and of the file system
        raise _refusal(name, e) from e
    return Path(folder)


def _refusal(name: HubName, error: Exception) -> ConfigError:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    what = f"{_WHAT[name.kind]} {name.repo}"
    reasons: list[tuple[Any, str]] = [  # the first is a kind of the second
        (
            GatedRepoError,
            f"the {what} is gated. Ask for access on its page, and log in on this machine: hf auth login.",
        ),
        (
            RepositoryNotFoundError,
            f"there is no {what}, or it is private. Correct the name; for a private one: hf auth login.",
        ),
        (
            RevisionNotFoundError,
            f"the {what} has no revision {name.revision!r}. Name a branch, tag or commit that it has.",
        ),
    ]
    for kind, said in reasons:
        if isinstance(error, kind):
            return ConfigError(f"{name}: {said}")
    first = next(iter(str(error).strip().splitlines()), "")
    return ConfigError(
        f"{name}: cannot be downloaded from {constants.ENDPOINT}: {type(error).__name__}: {first} Try again, "
        "or leave --download out to use what is in the cache."
    )
