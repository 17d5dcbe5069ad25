"""Which code computes rows follows from its files, and from git where it is a checkout."""

import subprocess

import pytest

from flexray import __version__
from flexray.engine.values import VALUES_VERSION
from flexray.runs.fingerprint import VALUE_PACKAGES, code_version, find_commit, source_digest


@pytest.fixture
def package(tmp_path):
    """A small package of that layout."""
    for name in VALUE_PACKAGES:
        (tmp_path / "project" / "flexray" / name).mkdir(parents=True)
        (tmp_path / "project" / "flexray" / name / "code.py").write_text(f"NAME = {name!r}\n")
    return tmp_path / "project" / "flexray"


def git(folder, *command):
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    done = subprocess.run(
        ["git", "-C", folder, *identity, *command], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_this_code_is_known():
    code = code_version()
    assert (code.flexray, code.values_version) == (__version__, VALUES_VERSION)
    assert len(code.source_sha256) == 64


def test_the_digest_is_that_of_names_and_contents_of_what_decides_on_values(package):
    before = source_digest(package)
    (package / "sink").mkdir()
    (package / "sink" / "code.py").write_text("")
    assert source_digest(package) == before
    file = package / "masks" / "code.py"
    file.rename(file.with_name("other.py"))
    renamed = source_digest(package)
    file.with_name("other.py").write_text("NAME = 1\n")
    assert len({before, renamed, source_digest(package)}) == 3


def test_the_commit_is_that_of_the_checkout(package):
    assert find_commit(package) == ""
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-qm", "first")
    assert find_commit(package) == git(package.parent, "rev-parse", "HEAD")
    (package / "masks" / "code.py").write_text("")
    assert find_commit(package).endswith("-dirty")


def test_a_checkout_of_something_else_around_it_is_not_its_commit(package):
    outer = package.parent.parent
    git(outer, "init", "-q")
    git(outer, "add", ".")
    git(outer, "commit", "-qm", "first")
    assert find_commit(package) == ""


def test_a_build_may_write_the_commit_down(package):
    (package / "COMMIT").write_text("c0ffee\n")
    assert find_commit(package) == "c0ffee"
