"""The installed packages, compared with what is required and what was tested."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import flexray
from flexray.config import RunConfig
from flexray.console.checks import Finding, fail, passed, warn

PROJECT = Path(flexray.__file__).resolve().parent.parent
INSTALL = "make setup, or: pip install -c constraints.txt -e ."


def check_packages(config: RunConfig | None) -> Iterator[Finding]:
    """Whether Python is new enough, and each required package installed, as constraints.txt has it."""
    (needed, requirements), tested = _required(), _tested()
    wrong, other = [], []
    python = platform.python_version().rstrip("+")
    if not needed.contains(python):
        yield fail(f"Python {python}, but {needed} is needed", "Make the environment with another one.")
    for requirement in requirements:
        name = requirement.name
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{name} {version}, but {requirement.specifier} is needed")
        elif name in tested and Version(version).public != tested[name]:
            other.append(f"{name} {version} (tested: {tested[name]})")
    if wrong:
        yield fail("; ".join(wrong), f"Install them: {INSTALL}.")
    if other:
        yield warn(f"not the tested versions: {', '.join(other)}", f"For the tested ones: {INSTALL}.")
    if not wrong and not other:
        as_tested = ", at the tested versions" if tested else ""
        yield passed(f"Python {python}, {len(requirements)} required packages{as_tested}")


def _required() -> tuple[SpecifierSet, list[Requirement]]:
    """The versions of Python, and the packages: from pyproject.toml, or else from the installed metadata."""
    file = PROJECT / "pyproject.toml"
    if file.is_file():
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        return SpecifierSet(project["requires-python"]), list(map(Requirement, project["dependencies"]))
    found = metadata.metadata("flexray")
    requirements = map(Requirement, found.get_all("Requires-Dist") or ())
    needed = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return SpecifierSet(found["Requires-Python"]), needed


def _tested() -> dict[str, str]:
    """Tested versions by package; empty if flexray was installed without its constraints.txt."""
    file = PROJECT / "constraints.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    pins = [line.partition("==") for line in lines if "==" in line and not line.startswith("#")]
    return {name.strip().lower(): version.strip() for name, _, version in pins}
