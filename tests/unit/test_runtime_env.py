"""runtime_env.yaml: Ray takes it, and it installs what the project needs at the pinned versions."""

import hashlib
import itertools
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ray._private.runtime_env.packaging import _get_excludes
from ray.runtime_env import RuntimeEnv

ROOT = Path(__file__).resolve().parents[2]
WORKING_DIR = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"  # Ray sets it while it installs


@pytest.fixture(scope="module")
def environment() -> RuntimeEnv:
    return RuntimeEnv(**yaml.safe_load((ROOT / "runtime_env.yaml").read_text()))


@pytest.fixture(scope="module")
def packages(environment: RuntimeEnv) -> list[str]:
    return environment.pip_config()["packages"]


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in pinned), "only exact pins"
    pairs = [line.split("==") for line in pinned]
    return {canonicalize_name(name): version for name, version in pairs}


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(r).name) for r in requirements}


def test_it_installs_at_the_versions_of_the_one_constraints_file(packages: list[str]):
    options = [p for p in packages if p.startswith("-")]

    assert options == [f"-c {WORKING_DIR}/constraints.txt"]
    assert (ROOT / options[0].removeprefix(f"-c {WORKING_DIR}/")).is_file()


def test_a_change_of_a_version_changes_what_ray_keeps_environments_by(packages: list[str]):
    digest = hashlib.sha256((ROOT / "constraints.txt").read_bytes()).hexdigest()[:16]

    assert packages[0] == f"# constraints.txt {digest}"


def test_it_installs_the_projects_dependencies_but_never_ray(packages: list[str], project: dict):
    wanted = [p for p in packages if not p.startswith(("-", "#"))]

    assert names(wanted) == names(project["dependencies"]) - {"ray"}


def test_it_uploads_all_of_the_package_but_no_model_output_or_environment(environment: RuntimeEnv):
    is_left_out = _get_excludes(ROOT, environment["excludes"])
    assert all(map(is_left_out, (ROOT / ".venv/bin/ray", ROOT / "models/a/b", ROOT / "out/c")))
    needed = [*ROOT.glob("flexray/**/*.py"), *ROOT.glob("jobs/**/*"), ROOT / "constraints.txt"]
    assert not any(map(is_left_out, needed))


def test_its_environment_variables_are_strings_and_forbid_downloads(environment: RuntimeEnv):
    assert environment.env_vars()["HF_HUB_OFFLINE"] == "1"
    assert all(isinstance(value, str) for value in environment.env_vars().values())


def test_every_direct_dependency_is_pinned_within_the_projects_range(project: dict, pins: dict[str, str]):
    extras = project["optional-dependencies"].values()
    for line in itertools.chain(project["dependencies"], *extras):
        requirement = Requirement(line)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), line
