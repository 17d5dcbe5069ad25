"""Installed versions: nothing is said of tested ones, newer ones get a line, others are refused."""

import tomllib
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from flexray.config import versions
from flexray.config.versions import PACKAGES, Package, check_versions
from flexray.errors import ConfigError
from tests.conftest import PROJECT


def installed(**found):
    """What `metadata.version` would say; the newest tested ones, but for these."""
    return lambda name: found.get(name, PACKAGES[name].newest)


def test_the_versions_of_this_environment_are_tested_ones():
    assert check_versions() == []
    for name, package in PACKAGES.items():
        assert Version(package.oldest) <= Version(metadata.version(name))


def test_pip_is_told_of_the_same_oldest_versions():
    tree = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = {r.name: str(r.specifier) for r in map(Requirement, tree["project"]["dependencies"])}
    assert {name: f">={package.oldest}" for name, package in PACKAGES.items()} == {
        name: wanted[name] for name in PACKAGES
    }


@pytest.mark.parametrize("name", PACKAGES)
def test_a_version_newer_than_any_tested_gets_one_line_that_names_it(name):
    (line,) = check_versions(installed(**{name: "99.1"}))
    assert f"{name} 99.1" in line
    assert PACKAGES[name].newest in line


@pytest.mark.parametrize("name", PACKAGES)
def test_a_version_that_is_too_old_is_refused_with_what_to_install(name):
    with pytest.raises(ConfigError, match=rf"{name} 1\.0\.0 cannot be used .* Install {name} "):
        check_versions(installed(**{name: "1.0.0"}))


def test_a_build_of_a_tested_version_is_that_version():
    assert check_versions(installed(torch=f"{PACKAGES['torch'].newest}+cu130")) == []


def test_a_broken_version_is_refused_with_the_reason(monkeypatch):
    package = Package("1.0", "3.0", "old", broken=(("==2.*", "it loses rows"),))
    monkeypatch.setattr(versions, "PACKAGES", {"ray": package})
    assert check_versions(lambda name: "1.5") == []
    with pytest.raises(ConfigError, match=r"ray 2\.1 cannot be used \(==2\.\*: it loses rows\)"):
        check_versions(lambda name: "2.1")
