"""The check of recipes and data, as its pod does it, which is no node of the cluster."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import PROJECT
from tests.ray.jobs import question, write
from tests.unit.cluster.manifests import CLUSTER, submitter


@pytest.fixture
def storage(tmp_path, tiny_model):
    """Stands for /mnt/qa, with the model and the data of the shipped recipe."""
    (tmp_path / "qa" / "questions").mkdir(parents=True)
    write(tmp_path / "qa" / "questions" / "today.jsonl", [question(i) for i in range(8)])
    shutil.copytree(tiny_model, tmp_path / "qa" / "models" / "Llama-3.2-3B")
    return tmp_path / "qa"


def check(storage: Path, **changes) -> subprocess.CompletedProcess[str]:
    """The pod's command in its environment, for the shipped recipe with these keys of its sections."""
    recipe = yaml.safe_load(
        (CLUSTER / "recipes" / "questions.yaml").read_text().replace("/mnt/qa", str(storage))
    )
    for section, keys in changes.items():
        recipe.setdefault(section, {}).update(keys)
    recipes = storage.parent / "recipes"
    recipes.mkdir()
    (recipes / "questions.yaml").write_text(yaml.safe_dump(recipe))
    (container,) = submitter("check")["spec"]["containers"]
    pod = {variable["name"]: variable["value"] for variable in container.get("env", [])}
    image = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(PROJECT)}
    command = [PROJECT / container["command"][0].removeprefix("/opt/flexray/"), recipes]
    return subprocess.run(
        command, env=image | {"HOME": str(storage.parent)} | pod, capture_output=True, text=True, timeout=120
    )


def test_the_shipped_recipe_passes_where_no_gpu_is_and_fewer_cpus_than_an_engine_asks(storage):
    done = check(storage, ray={"num_cpus_per_actor": 1000})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a GPU has memory that is not known" in done.stdout


def test_a_fault_of_the_data_is_found(storage):
    (storage / "questions" / "today.jsonl").unlink()
    done = check(storage)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"{storage}/questions/*.jsonl" in done.stdout + done.stderr
