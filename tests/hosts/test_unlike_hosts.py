"""A host that lacks what a run needs, or has something else, is named before any row is answered."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROJECT
from tests.hosts.cluster import PATIENCE, HostsCluster
from tests.ray.jobs import assert_whole, make_tree, manifests, question, write, write_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(PATIENCE)]
ROWS = 4


@pytest.fixture
def recipe(cluster: HostsCluster, tiny_model: Path, tmp_path: Path) -> Path:
    """A run whose model and output lie in folders of their own, `models` and `answers`."""
    shutil.copytree(tiny_model, tmp_path / "models" / "tiny")
    (tmp_path / "answers").mkdir()
    data = write(tmp_path / "questions.jsonl", [question(i) for i in range(ROWS)])
    ray = {"address": cluster.address, "num_cpus_per_actor": 0.5}
    tree = make_tree(tmp_path / "answers" / "out", tmp_path / "models" / "tiny", data, ray=ray)
    return write_config(tmp_path, tree)


def test_a_host_that_sees_other_things_is_named_with_them(
    cluster: HostsCluster, recipe: Path, save_tiny_model: Any, tmp_path: Path
) -> None:
    models, answers, package = tmp_path / "models", tmp_path / "answers", PROJECT / "flexray"
    trained = save_tiny_model(tmp_path / "trained", seed=1)
    (trained / "extra.json").write_text("{}")
    changed = Path(shutil.copytree(package, tmp_path / "changed"))
    with (changed / "engine" / "values.py").open("a") as file:
        file.write("\n")
    name = f"node fx-worker ({cluster.worker.address}): "
    for hidden, instead, expected in (
        (
            models,
            None,
            f"model.path: {models}/tiny: no such folder there. Mount the storage or copy the folder",
        ),
        (
            models / "tiny",
            trained,
            "not the driver's model: extra.json is extra, model.safetensors differs. Copy",
        ),
        (
            answers,
            None,
            f"output: {answers}/out: the run that the driver has planned is not to be seen there.",
        ),
        (
            package,
            changed,
            "another flexray is installed there than the driver's: the digest of its code is ",
        ),
        (package, None, "flexray cannot be run there: ModuleNotFoundError: No module named 'flexray"),
    ):
        with cluster.worker.shows(hidden, instead):
            done = cluster.flexray("run", "--config", recipe)
        assert done.returncode == 2, done.stdout + done.stderr
        said = " ".join(done.stderr.split())
        assert name in said, said
        assert expected in said, said
        assert manifests(answers / "out") == {}
    done = cluster.flexray("run", "--config", recipe)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_whole(answers / "out", ROWS)


def test_hosts_that_lack_the_same_are_named_in_one_line(
    cluster: HostsCluster, recipe: Path, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        for host in (cluster.storage, cluster.worker):
            stack.enter_context(host.shows(tmp_path / "models"))
        done = cluster.flexray("run", "--config", recipe)
    assert done.returncode == 2
    hosts = [f"fx-storage ({cluster.storage.address})", f"fx-worker ({cluster.worker.address})"]
    said = " ".join(done.stderr.split())
    assert any(f"nodes {', '.join(order)}: model.path: " in said for order in (hosts, hosts[::-1])), said
