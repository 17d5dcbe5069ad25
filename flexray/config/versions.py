"""Which releases of torch, transformers and Ray are supported.

`make test-compat` runs the tests with the oldest, the newest and some releases between; docs/compatibility.md
has the results. Differences between releases are handled in models/compat.py and, for Ray,
pipeline/actors.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from flexray.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Package:
    """The supported releases of a package."""

    oldest: str
    """Older ones are refused."""
    newest: str
    """The newest release that the tests were run with; for a newer one a note is printed."""
    why: str
    """Why older ones are refused."""
    broken: tuple[tuple[str, str], ...] = ()
    """Other releases that are refused: (specifier, reason)."""


PACKAGES = {
    "torch": Package("2.11", "2.14.1", "their FlexAttention was never tried with this mask"),
    "transformers": Package("4.55.2", "5.24.0", "their attention interface was never tried"),
    "ray": Package("2.55", "2.60.0", "2.49 to 2.54 unpickle what a data file's metadata hold on opening it"),
}


def check_versions(version_of: Callable[[str], str] = metadata.version) -> list[str]:
    """A note for each installed package that is newer than any tested release.

    Raises:
        ConfigError: a package is too old, or known not to work.
    """
    return [line for name, package in PACKAGES.items() for line in _check(name, package, version_of(name))]


def _check(name: str, package: Package, found: str) -> Iterator[str]:
    version = Version(Version(found).public)
    for specifier, why in ((f"<{package.oldest}", package.why), *package.broken):
        if SpecifierSet(specifier, prereleases=True).contains(version):
            raise ConfigError(
                f"{name} {found} cannot be used ({specifier}: {why}). Install {name} {package.oldest} to "
                f"{package.newest}, or what constraints.txt names."
            )
    if version > Version(package.newest):
        yield (
            f"{name} {found} is newer than any that flexray was tested with ({package.newest}); "
            "`flexray doctor` compares its attention with a slow one on this machine"
        )
