"""Which code computes rows: its release, its commit, and a digest of the sources that decide on values."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
from pathlib import Path

import flexray
from flexray.engine.values import VALUES_VERSION
from flexray.sink.records import CodeVersion

PACKAGE = Path(flexray.__file__).parent
VALUE_PACKAGES = ("config", "engine", "masks", "methods", "models", "prompts")
"""Their sources decide on what is answered."""
COMMIT_FILE = "COMMIT"
"""In the package, where a build has written the commit there."""


@functools.cache
def code_version() -> CodeVersion:
    """The code that this process has imported."""
    return CodeVersion(
        flexray=flexray.__version__,
        commit=find_commit(PACKAGE),
        source_sha256=source_digest(PACKAGE),
        values_version=VALUES_VERSION,
    )


def source_digest(package: Path) -> str:
    """Hex sha256 over the names and bytes of all Python files in VALUE_PACKAGES."""
    digest = hashlib.sha256()
    for name in VALUE_PACKAGES:
        for path in sorted((package / name).rglob("*.py")):
            data = path.read_bytes()
            digest.update(f"{path.relative_to(package).as_posix()} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def find_commit(package: Path) -> str:
    """The commit that a build has written down, or that is checked out, with `-dirty` behind it if tracked
    files were changed since; "" if neither is known."""
    written = package / COMMIT_FILE
    if written.is_file():
        return written.read_text(encoding="utf-8").strip()
    git = ["git", "-C", str(package.parent)]
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # nothing is written into the checkout
    try:
        top, commit = (
            subprocess.run([*git, *command], env=environment, capture_output=True, text=True, timeout=10)
            for command in (
                ["rev-parse", "--show-toplevel"],
                ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            )
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    # an installed package may lie inside a checkout of something else
    is_ours = not top.returncode and Path(top.stdout.strip()) == package.parent.resolve()
    return commit.stdout.strip() if is_ours and not commit.returncode else ""
