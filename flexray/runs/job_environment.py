"""The runtime environment of a job that brings no other: what each node installs, and variables."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from flexray.errors import ConfigError

CONSTRAINTS = "constraints.txt"
EXTRAS = ("hub", "lemmas")
"""That the nodes get, too, if their packages are installed here."""
VARIABLES = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
_OURS = "flexray"
_CLUSTERS_OWN = "ray"


def job_environment(*, install: bool) -> tuple[dict[str, Any], str]:
    """The environment, and the text of the file CONSTRAINTS that it expects in the job's folder.

    Args:
        install: have each node install the packages that flexray needs, at the versions that are installed
            here, but for Ray, which is the cluster's.

    Raises:
        ConfigError: flexray is not an installed package, so that it is not known what it needs.
    """
    environment: dict[str, Any] = {"env_vars": VARIABLES}
    if not install:
        return environment, ""
    needed = _needed()
    versions = _versions(needed)
    constraints = "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))
    # Ray keeps an environment as long as this list is the same, and does not look into the file
    digest = hashlib.sha256(constraints.encode()).hexdigest()[:16]
    packages = [
        f"# {CONSTRAINTS} {digest}",
        f"-c ${{RAY_RUNTIME_ENV_CREATE_WORKING_DIR}}/{CONSTRAINTS}",
        *needed,
    ]
    # the other packages of a node are not ours to judge
    return environment | {"pip": {"packages": packages, "pip_check": False}}, constraints


def _needed() -> list[str]:
    """Names of what flexray needs, without Ray."""
    try:
        requirements = [Requirement(line) for line in metadata.requires(_OURS) or ()]
    except metadata.PackageNotFoundError:
        raise ConfigError(
            "flexray is not installed as a package here, so it is not known what the nodes are to install. "
            "Install it with pip, say --no-install if the nodes have all that it needs, or name a file with "
            "--runtime-env."
        ) from None
    names = {canonicalize_name(r.name) for r in requirements if _applies(r, "")}
    for extra in EXTRAS:
        more = {canonicalize_name(r.name) for r in requirements if r.marker and _applies(r, extra)}
        names |= {name for name in more if _versions([name])}
    return sorted(names - {_CLUSTERS_OWN})


def _versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of these packages, and of those that they need, as they are installed here. One that is not
    has none."""
    found: dict[str, str] = {}
    queue = [*map(canonicalize_name, names)]
    while queue:
        name = queue.pop()
        if name in found or name == _CLUSTERS_OWN:
            continue
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of another platform, or optional
            continue
        found[name] = Version(package.version).public  # not which build, such as +cpu
        requirements = map(Requirement, package.requires or ())
        queue += [canonicalize_name(r.name) for r in requirements if _applies(r, "")]
    return found


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})
