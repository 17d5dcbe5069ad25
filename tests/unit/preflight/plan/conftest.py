import shutil

import pytest

from tests.ray.jobs import make_config, manifests, question, write
from tests.runs import run_shards
from tests.unit.preflight.doctor.conftest import config_of  # noqa: F401  a fixture


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory, tiny_model):
    """The output of `config_of()`, all of it."""
    folder = tmp_path_factory.mktemp("run")
    data = write(folder / "qa.jsonl", [question(i) for i in range(8)])
    run_shards(make_config(folder / "out", tiny_model, data), [0, 1, 2])
    return folder / "out"


@pytest.fixture
def commit(whole_run, tmp_path):
    """Makes the output folder one in which these shards of `config_of()` are committed; returns manifests."""

    def commit(*which):
        shutil.copytree(whole_run, tmp_path / "out")
        found = manifests(tmp_path / "out")
        for shard in found.keys() - {f"qa-test-{i:06d}" for i in which}:
            found.pop(shard).unlink()
        return found

    return commit


@pytest.fixture
def files(tmp_path):
    """All that lies below the test's folder, with its bytes and times."""

    def look():
        found = {}
        for path in sorted(tmp_path.rglob("*")):
            status = path.stat()
            found[str(path)] = (status.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        return found

    return look
