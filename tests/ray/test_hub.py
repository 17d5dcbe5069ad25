"""Runs of a model and a data set by their names on the hub (one on loopback), answered by Ray's actors."""

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from flexray.models.hub import download_model
from flexray.pipeline.hub import download
from flexray.sink import OutputFolder, load_run
from tests.hub import FakeHub, use_hub
from tests.ray.jobs import (
    assert_whole,
    flexray_command,
    flexray_here,
    make_config,
    make_tree,
    manifests,
    question,
    rows_of,
    write,
    write_config,
)
from tests.runs import run_shards

MODEL, DATA = "someone/tiny-llama", "someone/questions"
ROWS = [question(i) for i in range(7)]

TWO_NODES = """
import sys
import ray
from ray.cluster_utils import Cluster
from flexray.config import load_config
from flexray.errors import UserError
from flexray.runs.run import run

recipe, *homes = sys.argv[1:]
cluster = Cluster()
for i, home in enumerate(homes, start=1):
    cluster.add_node(
        num_cpus=2,
        node_ip_address=f"127.0.1.{i}",
        object_store_memory=80 * 2**20,
        include_dashboard=False,
        env_vars={"HF_HOME": home},
    )
try:
    run(load_config(recipe, [f"ray.address={cluster.address}"]))
    refused = None
except UserError as e:
    refused = f"refused: {e}"
finally:
    ray.shutdown()
    cluster.shutdown()
sys.exit(refused)
"""


@pytest.fixture
def pushed(hub: FakeHub, tiny_model: Path, tmp_path: Path) -> FakeHub:
    """The hub, with both."""
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "test.jsonl", ROWS)
    hub.push(f"models/{MODEL}", tiny_model)
    hub.push(f"datasets/{DATA}", tmp_path / "data")
    return hub


def test_a_run_by_names_downloads_if_told_and_answers_as_one_by_folders(
    pushed: FakeHub, tiny_model: Path, tmp_path: Path
) -> None:
    recipe = write_config(tmp_path, make_tree(tmp_path / "out", Path(MODEL), data={"hub": DATA}))
    code, _, errors = flexray_here("run", "--config", recipe)
    assert code == 2
    assert f"hf download {MODEL} --revision main" in errors
    assert pushed.asked == []
    command = [*flexray_command(recipe), "--download"]  # Ray's workers find the cache by its environment
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    commit = pushed.branches[f"models/{MODEL}", "main"]
    assert f"model.path: {MODEL}@{commit}" in done.stdout
    assert_whole(tmp_path / "out", len(ROWS))
    assert load_run(OutputFolder(str(tmp_path / "out"))).config["model"]["path"] == f"{MODEL}@{commit}"
    run_shards(make_config(tmp_path / "folder", tiny_model, tmp_path / "data" / "test.jsonl"), range(3))
    assert tokens_of(tmp_path / "out") == tokens_of(tmp_path / "folder")
    assert {row["error"] for row in rows_of(tmp_path / "out").values()} == {""}
    fingerprints = {load_run(OutputFolder(str(tmp_path / out))).fingerprint for out in ("out", "folder")}
    assert len(fingerprints) == 1


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_each_node_needs_the_commit_and_reads_no_other_wherever_its_branch_is(
    pushed: FakeHub, tiny_model: Path, save_tiny_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = Path(os.environ["HF_HOME"]), tmp_path / "there"
    output = tmp_path / "out"
    tree = make_tree(output, Path(MODEL), data={"hub": DATA, "shard_rows": 1})
    tree["ray"] = {"min_actors": 2}
    recipe = write_config(tmp_path, tree)
    download(make_config(output, Path(MODEL), data={"hub": DATA}), lambda line: None)
    pushed.asked.clear()

    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

    def start() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", TWO_NODES, str(recipe), str(here), str(there)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)

    done = start()
    assert done.returncode == 1
    commit = pushed.branches[f"models/{MODEL}", "main"]
    refused = done.stderr[done.stderr.index("refused: ") :]
    assert (
        f"{MODEL}: no such model folder; and as a model of the Hugging Face hub, revision {commit}" in refused
    )
    assert refused.startswith("refused: node ")
    assert f"it is not in this machine's cache, {there}/hub" in refused
    assert f"hf download {MODEL} --revision {commit}" in refused
    assert manifests(output) == {}
    assert pushed.asked == []

    shutil.copytree(here, there, symlinks=True)
    pushed.push(f"models/{MODEL}", save_tiny_model(tmp_path / "other", seed=1))
    with monkeypatch.context() as patch:
        use_hub(pushed, there, patch)
        download_model(MODEL)
        assert len(list(Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*"))) == 2
    pushed.asked.clear()
    done = start()
    assert done.returncode == 0, done.stdout + done.stderr
    assert_whole(output, len(ROWS))
    assert pushed.asked == []
    by_folder = tmp_path / "folder"
    run_shards(make_config(by_folder, tiny_model, tmp_path / "data" / "test.jsonl"), range(3))
    assert tokens_of(output) == tokens_of(by_folder)


def tokens_of(output: Path) -> dict[str, list[int]]:
    return {row_id: row["token_ids"] for row_id, row in rows_of(output).items()}
