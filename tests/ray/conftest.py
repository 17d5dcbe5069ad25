"""One Ray for all jobs that run in this process."""

import json
import os
import shutil

import pytest

from flexray.config import fault_injection as faults
from flexray.runs.run import run
from tests.ray.jobs import make_config, make_tree, question, write


@pytest.fixture(scope="session")
def faults_file(tmp_path_factory):
    """The faults of the session's Ray: none, as long as no test writes any."""
    path = tmp_path_factory.mktemp("faults") / "faults.json"
    path.write_text("[]")
    return path


@pytest.fixture(scope="session")
def local_ray(faults_file):
    """Its address."""
    import ray

    with pytest.MonkeyPatch.context() as patch:  # its workers inherit it
        patch.setenv(faults.VARIABLE, f"@{faults_file}")
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=200 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
        )
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture
def inject(local_ray, faults_file):
    """Sets the faults that happen in the workers of the session's Ray, until the test ends."""

    def inject(*happen):
        faults_file.with_suffix(".new").write_text(json.dumps(happen))
        os.replace(faults_file.with_suffix(".new"), faults_file)

    yield inject
    inject()


@pytest.fixture(scope="session")
def finished(local_ray, tiny_model, tmp_path_factory):
    """A finished run of seven rows in three shards: its folder, with questions.jsonl. Do not change it."""
    folder = tmp_path_factory.mktemp("finished")
    data = write(folder / "questions.jsonl", [question(i) for i in range(7)])
    run(make_config(folder / "out", tiny_model, data), log=lambda _: None)
    return folder


@pytest.fixture
def again(finished, tiny_model, tmp_path):
    """A copy of the finished run: the configuration tree of its second start."""
    shutil.copytree(finished / "out", tmp_path / "out")
    shutil.copy(finished / "questions.jsonl", tmp_path)
    return make_tree(tmp_path / "out", tiny_model, tmp_path / "questions.jsonl")


@pytest.fixture
def output(again, tmp_path):
    """Its output folder."""
    return tmp_path / "out"
