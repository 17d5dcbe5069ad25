"""What a worker has to say of a storage that fails in a passing way stands in Ray's logs."""

import time
from pathlib import Path

import ray

from flexray.data.plan_rows import read_planned
from flexray.pipeline.ray_data import answer_shards
from flexray.sink import OutputFolder, specs_of
from tests.ray.jobs import make_config, question, write
from tests.runs import planned


def test_those_that_prepare_and_those_that_commit_tell_of_another_attempt(local_ray, tiny_model, tmp_path):
    def fail_once(url):
        from flexray.storage import retry

        faults = [ConnectionResetError("cut")]

        def call():
            if faults:
                raise faults.pop()

        retry(url, call, patience=1)

    def only(spec):
        fail_once("s3://source/x")
        return frozenset(read_planned(spec, ["row_id"])["row_id"].to_pylist())

    def commit(shard):
        fail_once("s3://output/x")
        rows = shard.questions.num_rows
        counts = {"rows": rows, "errors": rows, "fallbacks": 0, "empty": 0}
        return {"shard_id": shard.spec.shard_id, "seconds": 0.0} | counts

    data = write(tmp_path / "questions.jsonl", [question(0, question="")])  # an error row: no model is loaded
    config = make_config(tmp_path / "out", tiny_model, data)
    specs = list(specs_of(OutputFolder(config.output), planned(config).record).values())
    assert [done["rows"] for done in answer_shards(specs, config, commit, only)] == [1]

    logs = Path(ray._private.worker._global_node.get_session_dir_path(), "logs")
    wanted = {"s3://source/x", "s3://output/x"}
    end = time.monotonic() + 30
    while wanted:
        assert time.monotonic() < end, f"no worker's log has a line about {wanted}"
        lines = [line for path in logs.glob("worker-*.err") for line in path.read_text().splitlines()]
        wanted -= {url for url in wanted for line in lines if url in line and "Trying again in " in line}
        time.sleep(0.1)
